"""Units and ranges of settings, and their texts. Options, files and the Python API parse with these."""

from __future__ import annotations

import re
from typing import TypeGuard

from cdna.errors import ConfigError

MIB = 1 << 20  # bytes
MAX_RATE = 1e12  # bits a second, of a guest or a wire
MAX_FRAMES = 10**9  # a second, of a storm limit
MAX_SECONDS = 1e9  # that a command may run
MAX_WEIGHT = 1000
MAX_VLAN = 4094  # IEEE 802.1Q; 0 is untagged
TRUNK = "trunk"  # a VLAN setting: frames with any tag
VLAN_TRUNK = 0xFFFF  # the same, as the NIC takes it
MIN_MTU = 68  # bytes: of IPv4 (RFC 791, 3.2)
MIN_GUEST_MTU = 1280  # bytes: of IPv6 (RFC 8200, 5), which the stacks of guests have
MAX_MTU = 9000  # bytes: what a frame of `abi.Limits.MAX_FRAME` holds behind a VLAN tag

STRATEGIES = ("single-use", "shared", "persistent", "direct-map")  # of an I/O table
PROTECTIONS = ("validated", "none", *(f"iommu:{strategy}" for strategy in STRATEGIES))

MAC_ADVICE = "give six bytes in hexadecimal, for example 02:00:00:00:00:01"
VLAN_ADVICE = f"give 1 to {MAX_VLAN}, 0 for untagged frames, or {{}} for any tag"

_RATES = {"T": 1e12, "G": 1e9, "M": 1e6, "K": 1e3}
_MEBIBYTES = {"M": 1, "G": 1 << 10, "T": 1 << 20}
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII | re.IGNORECASE)
_SIZE = re.compile("([1-9][0-9]{0,6})([MGT])", re.ASCII | re.IGNORECASE)


def parse_rate(text: str) -> float:
    """Bits a second of a text such as 100M or 1.5G, of any size. ValueError: it is no number."""
    word = text.strip().upper()
    unit = _RATES.get(word[-1:])
    return float(word) if unit is None else float(word[:-1]) * unit


def rate_text(rate: float) -> str:
    """Bits a second as `parse_rate` takes them: 100M, 1.5G."""
    for unit, size in _RATES.items():
        if rate >= size:
            return f"{rate / size:g}{unit}"
    return f"{rate:g}"


def parse_mebibytes(text: str) -> int | None:
    """MiB of a text such as 512M or 4G; None: it is no such text."""
    found = _SIZE.fullmatch(text.strip())
    return int(found[1]) * _MEBIBYTES[found[2].upper()] if found else None


def size_text(size: int) -> str:
    """Bytes in the largest unit of which they are a whole number: 512M, 4G."""
    for unit, mebibytes in reversed(_MEBIBYTES.items()):
        if size and size % (mebibytes * MIB) == 0:
            return f"{size // (mebibytes * MIB)}{unit}"
    return str(size)


def is_mac(text: object) -> TypeGuard[str]:
    """Whether this is the text of a MAC address, as `parse_mac` takes it."""
    return isinstance(text, str) and _MAC.fullmatch(text) is not None


def parse_mac(text: object) -> bytes:
    """The six bytes of aa:bb:cc:dd:ee:ff."""
    if not is_mac(text):
        raise ConfigError(f"MAC address {text!r}: {MAC_ADVICE}")
    return bytes.fromhex(text.replace(":", ""))
