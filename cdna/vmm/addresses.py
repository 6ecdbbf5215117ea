"""MAC addresses of contexts that are given none.

Without an identity the address tells the context: 02:cd:0a:00:00:05 is context 5's. That is right inside one
process, and for tests. Where the frames leave the machine, two NICs would hand out the same ones; there the
address is derived from the machine, the NIC's identity on it, and the guest's name:

    machine key = BLAKE2b(machine-id, host name)
    address     = BLAKE2b(identity, guest, ordinal, attempt; keyed with the machine key), 44 bits of it

A guest of the same name keeps its address over restarts, and when it comes back on another context.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from hashlib import blake2b

# A container often has the machine-id of its image or host, or none; its host name then tells it apart.
# The boot id, for want of a machine-id, is another one after each start of the machine.
MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id")
ATTEMPTS = 256  # addresses to try for one guest
PREFIX = b"\x02\xcd\x0a"  # of addresses that tell the context
# IEEE 802c: a local unicast address that the administrator assigns has the second digit 2.
LOCAL, LOCAL_MASK = 0x02, 0xF0

_ID = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def machine_key() -> bytes:
    """A key that differs by machine and container, and stays the same over restarts. It hides the id."""
    return blake2b(_machine_id() + b"\0" + os.uname().nodename.encode(), person=b"cdna-machine").digest()


def _machine_id() -> bytes:
    for path in MACHINE_IDS:
        try:
            with open(path, "rb") as file:
                text = file.read(64).strip()
        except OSError:
            continue
        if _ID.fullmatch(text) and text.strip(b"0-"):
            return text
    return b""


class AddressBook:
    """Gives addresses to contexts. identity: tells apart the NICs of one machine; None: by context index."""

    def __init__(self, identity: str | None = None) -> None:
        self._key = None
        if identity is not None:
            self._key = blake2b(_text(identity), key=machine_key(), person=b"cdna-nic").digest()

    def candidates(self, guest: str, ordinal: int, index: int) -> Iterator[bytes]:
        """Addresses to try for a context, best first. ordinal: contexts that the guest has already."""
        for attempt in range(ATTEMPTS):
            if self._key is None:
                yield PREFIX + bytes([attempt, index >> 8, index & 0xFF])
            else:
                what = b"%b\0%d\0%d" % (_text(guest), ordinal, attempt)
                mac = bytearray(blake2b(what, key=self._key, digest_size=6, person=b"cdna-mac").digest())
                mac[0] = mac[0] & LOCAL_MASK | LOCAL
                yield bytes(mac)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
