"""What /etc/resolv.conf says inside a guest, and other files of /etc that a guest has of its own.

A file for the guest (dns=, /etc/netns/NAME/) comes first. Then the host's own, unless it names servers on
the loopback device alone, as a stub resolver's does: the guest has a loopback device of its own, with no
server on it. The servers behind the stub are in files of its.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

RESOLV_CONF = "/etc/resolv.conf"
OWN_FILES = "/etc/netns"  # files for a namespace by its name: see ip-netns(8)
UPSTREAM = (  # where a stub resolver tells its own servers
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
)
MAX_BYTES = 1 << 16


def resolv_text(servers: Sequence[str]) -> str:
    """The text of resolv.conf(5) that names these servers."""
    return "# Written by cdna for this guest: dns=.\n" + "".join(f"nameserver {s}\n" for s in servers)


def nameservers(path: str) -> list[str]:
    """The servers that a file of resolv.conf(5) names; none where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file.read(MAX_BYTES).splitlines()]
    except OSError:
        return []
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def reachable(servers: Iterable[str]) -> bool:
    """Whether a server is among these that is not on the loopback device."""
    return any(not _is_loopback(server) for server in servers)


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server).is_loopback
    except ValueError:
        return False


def upstream() -> str | None:
    """The file that stands in for the host's resolv.conf inside guests; None: the host's own is right."""
    own = nameservers(RESOLV_CONF)
    if not own or reachable(own):
        return None
    return next((path for path in UPSTREAM if reachable(nameservers(path))), None)


def is_stub() -> bool:
    """Whether guests can reach none of the host's name servers."""
    own = nameservers(RESOLV_CONF)
    return bool(own) and not reachable(own) and upstream() is None


def own_files(guest: str) -> dict[str, str]:
    """Files that the guest has in place of those of /etc: where they lie, by what they cover."""
    directory = os.path.join(OWN_FILES, guest)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return {}
    return {os.path.join("/etc", name): os.path.join(directory, name) for name in names if name != "hosts"}
