"""From what an option or a file says to the setting of a guest or of the lab.

Each function takes where the value stood ("--rate", "lab.toml: [[guest]] 2, rate") and the value, as text or
as TOML has it, and raises ConfigError in one line that names both and what would be right.
"""

from __future__ import annotations

import os
import pwd
import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from cdna.base.readers import bad, whole, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdna.lab.namespace import Address, Interface

Network = IPv4Network | IPv6Network

MAX_PATH = 107  # bytes: sun_path of unix(7) less its zero
# Names that mean something else inside a lab, or in many a hosts file.
RESERVED = (
    "localhost",
    "host",
    "wire",
    "all",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
)
MAX_SERVERS = 3  # MAXNS of resolv.h: name servers beyond are ignored

_NAME = re.compile("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)


def name(where: str, value: object) -> str:
    """A guest's name: a host name of one label (RFC 1123), which no resolver takes for a number."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise bad(where, value, "give 1 to 63 letters, digits and hyphens, a letter first, as in a host name")
    if value.lower() in RESERVED:
        raise bad(where, value, f"has another meaning in a lab; {', '.join(RESERVED)} cannot be guests")
    return value


def cpu(where: str, value: object) -> int:
    return whole(where, value, 0, 1 << 16)


def socket_path(where: str, value: object) -> str:
    """The absolute path of a Unix socket, in a directory that is there."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise bad(where, value, "give the path of a Unix socket, such as /run/cdna/web.sock")
    path = os.path.abspath(value)
    if len(os.fsencode(path)) > MAX_PATH:
        raise bad(where, value, f"longer than the {MAX_PATH} bytes that a Unix socket's path can have")
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise bad(where, value, f"there is no directory {directory!r:.80}; make it first")
    if os.path.isdir(path):
        raise bad(where, value, "a directory; give the path of a socket in it")
    return path


def users(where: str, value: object) -> tuple[int, ...]:
    """Users by name or number."""
    found = []
    for word in words(where, value):
        try:
            found.append(int(word) if word.isdecimal() else pwd.getpwnam(word).pw_uid)
        except (KeyError, ValueError):
            raise bad(where, word, "no user of this machine; give a name such as libvirt-qemu") from None
    return tuple(found)


def nets(where: str, value: object) -> tuple[Network, ...]:
    """The networks that addresses are taken from: at most one of each family."""
    advice = "give a network, such as 10.77.0.0/24 or fd77::/64"
    found: list[Network] = []
    for word in words(where, value):
        try:
            net = ip_network(word)
        except ValueError:
            raise bad(where, word, f"{_host_bits(word)}{advice}") from None
        if net.num_addresses < 8 or net.is_multicast or net.is_loopback:
            raise bad(where, word, f"no room for guests; {advice}")
        if any(net.version == other.version for other in found):
            raise bad(where, word, f"a second one of IPv{net.version}; give one of each")
        found.append(net)
    return tuple(found)


def _host_bits(word: str) -> str:
    try:
        return f"this is an address in {ip_network(word, strict=False)}; "
    except ValueError:
        return ""


def addresses(where: str, value: object, known: Sequence[Network]) -> tuple[Interface, ...]:
    """Addresses with their prefixes; one without is completed from the lab's network that it lies in."""
    return tuple(_interface(where, word, known) for word in words(where, value))


def _interface(where: str, word: str, known: Sequence[Network]) -> Interface:
    try:
        interface = ip_interface(word)
    except ValueError:
        raise bad(where, word, "give an address, such as 10.77.0.5 or fd77::5/64") from None
    if "/" not in word:
        net = next((net for net in known if net.version == interface.version and interface.ip in net), None)
        if net is None:
            nets_known = ", ".join(map(str, known)) or "none"
            prefix = 24 if interface.version == 4 else 64
            advice = f"in none of the lab's networks ({nets_known}); give one that is, or {word}/{prefix}"
            raise bad(where, word, advice)
        interface = ip_interface(f"{interface.ip}/{net.prefixlen}")
    ip, net = interface.ip, interface.network
    if ip.is_multicast or ip.is_loopback or ip.is_unspecified:
        raise bad(where, word, "no address of a single device; give one, such as 10.77.0.5")
    if net.num_addresses > 2 and (
        ip == net.network_address or (ip == net.broadcast_address and ip.version == 4)
    ):
        raise bad(where, word, f"the first and the last address of {net} are the network's own; give another")
    return interface


def _seen_by_guest(where: str, word: str, advice: str) -> Address:
    """The address that `word` is inside a guest, whose only device is eth0."""
    try:
        return ip_address(word.removesuffix("%eth0"))
    except ValueError:
        raise bad(where, word, advice) from None


def servers(where: str, value: object) -> tuple[str, ...]:
    """Name servers: up to MAX_SERVERS addresses, of any network."""
    found: list[str] = []
    for word in words(where, value):
        address = _seen_by_guest(where, word, "give the address of a name server, such as 10.77.0.254")
        if address.is_loopback or address.is_multicast or address.is_unspecified:
            raise bad(
                where, word, "no server that a guest reaches; give the address of one outside the guest"
            )
        if address.version == 6 and address.scope_id is not None:
            raise bad(
                where, word, "the guest has no such device; give the address with %eth0 or without a zone"
            )
        by_link = address.version == 6 and address.is_link_local  # the resolver needs to know the device
        found.append(f"{address}%eth0" if by_link else str(address))
    if not 1 <= len(found) <= MAX_SERVERS:
        raise bad(where, value, f"give 1 to {MAX_SERVERS} addresses of name servers")
    return tuple(found)


def gateways(where: str, value: object, own: Sequence[Interface]) -> tuple[Address, ...]:
    """Routers, which have to be neighbours: at most one of each family. IPv6: also link-local ones."""
    found: list[Address] = []
    for word in words(where, value):
        address = _seen_by_guest(where, word, "give an address, such as 10.77.0.254")
        by_link = address.version == 6 and address.is_link_local and address.scope_id is None
        if not by_link and not any(address.version == i.version and address in i.network for i in own):
            near = ", ".join(str(i.network) for i in own) or "none"
            raise bad(where, word, f"no neighbour of this guest; give an address in its networks ({near})")
        if any(address.version == other.version for other in found):
            raise bad(where, word, f"a second one of IPv{address.version}; give one of each")
        found.append(address)
    return tuple(found)
