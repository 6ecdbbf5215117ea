"""MAC addresses of a scapy guest's neighbours: asked for by the guest itself, and remembered."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from scapy.error import Scapy_Exception
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.utils6 import in6_getnsma, in6_getnsmac, inet_ntop, inet_pton

from cdna.base.units import parse_mac

if TYPE_CHECKING:
    from cdna.guests.scapy_socket import ScapySocket
    from cdna.guests.shared_driver import SharedDriver

ASK_FOR = 2.0  # seconds until nobody is assumed to have an address
EVERYBODY = "ff:ff:ff:ff:ff:ff"
KEEP_FOR = 120.0  # seconds, as scapy's own cache

_known: WeakKeyDictionary[SharedDriver, dict[str, tuple[str, float]]] = WeakKeyDictionary()


def next_hop(address: str, network: str | None, gateway: str | None) -> str:
    """The address of whoever a packet is handed to."""
    if gateway is None or network is None:
        return address
    near = ipaddress.ip_network(network, strict=False)
    destination = ipaddress.ip_address(address)
    if destination.is_multicast or (destination.version == near.version and destination in near):
        return address
    return gateway


def resolve(sock: ScapySocket, address: str) -> str:
    """The MAC address of an IPv4 or IPv6 address. Scapy_Exception: nobody answers for it."""
    ip = ipaddress.ip_address(address)
    if address == "255.255.255.255" or is_broadcast(ip, sock.network):
        return EVERYBODY
    if address in (sock.ip, link_local(sock.mac)):
        return sock.mac
    if ip.is_multicast:
        return _multicast(ip)
    known = _known.setdefault(sock.shared, {})
    mac, until = known.get(address, ("", 0.0))
    if not mac or time.monotonic() > until:
        mac = _ask_v4(sock, address) if ip.version == 4 else _ask_v6(sock, address)
        if not mac:
            raise Scapy_Exception(f"nobody answers for {address}: no MAC address to send to")
        known[address] = mac, time.monotonic() + KEEP_FOR
    return mac


def is_broadcast(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str | None) -> bool:
    """Whether it is the broadcast address of an IPv4 network; one of fewer than four addresses has none."""
    if network is None or ip.version != 4:
        return False
    near = ipaddress.ip_network(network, strict=False)
    return near.prefixlen <= 30 and ip == near.broadcast_address


def _multicast(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """RFC 1112 section 6.4, RFC 2464 section 7."""
    if ip.version == 4:
        return "01:00:5e:" + (int(ip) & 0x7FFFFF).to_bytes(3, "big").hex(":")
    return "33:33:" + (int(ip) & 0xFFFFFFFF).to_bytes(4, "big").hex(":")


def _ask_v4(sock: ScapySocket, address: str) -> str:
    from cdna.guests.scapy_socket import ScapySocket

    with ScapySocket(sock.shared, ip=sock.ip or "0.0.0.0") as link:
        answer = link.sr1(Ether(dst=EVERYBODY) / ARP(pdst=address), timeout=ASK_FOR, verbose=0)
    return str(answer[ARP].hwsrc) if answer is not None else ""


def _ask_v6(sock: ScapySocket, address: str) -> str:
    """Asks from the guest's link-local address (RFC 4861 section 7.2)."""
    from cdna.guests.scapy_socket import ScapySocket

    solicited = in6_getnsma(inet_pton(10, address))
    question = (
        Ether(src=sock.mac, dst=in6_getnsmac(solicited))
        / IPv6(src=link_local(sock.mac), dst=inet_ntop(10, solicited))
        / ICMPv6ND_NS(tgt=address)
        / ICMPv6NDOptSrcLLAddr(lladdr=sock.mac)
    )
    with ScapySocket(sock.shared) as link:
        answer = link.sr1(question, timeout=ASK_FOR, verbose=0)
    if answer is None or ICMPv6ND_NA not in answer:
        return ""
    if ICMPv6NDOptDstLLAddr in answer:
        return str(answer[ICMPv6NDOptDstLLAddr].lladdr)
    return str(answer[Ether].src)


def link_local(mac: str) -> str:
    """The link-local address of a MAC address (RFC 4291, appendix A)."""
    raw = parse_mac(mac)
    return str(inet_ntop(10, b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]))


__all__ = ["link_local", "next_hop", "resolve"]
