"""Frames with work left to do, of every kind, and what becomes of them on a wire, in plain Python."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from cdna.abi import VNET_HEADER_DTYPE, OffloadKind, Takes, VnetFlag, VnetGso
from cdna.nic.wire import Offload
from tests.support.tcp import checksum, fold

ADDRESSES = {IP: {"src": "10.0.0.1", "dst": "10.0.0.2"}, IPv6: {"src": "fd00::1", "dst": "fd00::2"}}
ETHERTYPE = {IP: b"\x08\x00", IPv6: b"\x86\xdd"}
KIND, HDR_LEN = OffloadKind.OFFLOAD_KIND, 0xFFFF & ~OffloadKind.OFFLOAD_KIND
EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options
FIN, PSH, CWR = 0x01, 0x08, 0x80


@dataclass(frozen=True)
class Kind:
    """A kind of work: of which family and transport, what it is cut into, what a receiver has to take."""

    ip: type[Packet]
    needs: int
    offload: int | None = None  # OffloadKind; None: a checksum only
    flags: str = "PA"
    gso: int = VnetGso.VNET_GSO_NONE
    length: int = 5000  # bytes of payload
    mss: int = 1000

    @property
    def udp(self) -> bool:
        return bool(self.offload)


_C = Takes.TAKES_CSUM
_SEGMENTS, _FRAGMENTS = OffloadKind.OFFLOAD_UDP_SEGMENTS, OffloadKind.OFFLOAD_UDP_FRAGMENTS
_ECN = VnetGso.VNET_GSO_ECN
KINDS = {
    "csum4": Kind(IP, _C, length=900),
    "csum6": Kind(IPv6, _C, length=900),
    "tso4": Kind(IP, _C | Takes.TAKES_TSO4, 0, gso=VnetGso.VNET_GSO_TCPV4),
    "tso6": Kind(IPv6, _C | Takes.TAKES_TSO6, 0, gso=VnetGso.VNET_GSO_TCPV6),
    "ecn4": Kind(IP, _C | Takes.TAKES_TSO4 | Takes.TAKES_ECN, 0, "PAC", VnetGso.VNET_GSO_TCPV4 | _ECN),
    "ecn6": Kind(IPv6, _C | Takes.TAKES_TSO6 | Takes.TAKES_ECN, 0, "PAC", VnetGso.VNET_GSO_TCPV6 | _ECN),
    "uso4": Kind(IP, _C | Takes.TAKES_USO4, _SEGMENTS, gso=VnetGso.VNET_GSO_UDP_L4),
    "uso6": Kind(IPv6, _C | Takes.TAKES_USO6, _SEGMENTS, gso=VnetGso.VNET_GSO_UDP_L4),
    "ufo4": Kind(IP, _C | Takes.TAKES_UFO, _FRAGMENTS, gso=VnetGso.VNET_GSO_UDP),
    "ufo6": Kind(IPv6, _C | Takes.TAKES_UFO, _FRAGMENTS, gso=VnetGso.VNET_GSO_UDP),
}


def large(
    kind: Kind, to: bytes, source: bytes, tag: bytes = b"", chain: bytes = b""
) -> tuple[bytes, Offload]:
    """A frame of this kind, its checksum the pseudo header's alone, and what is to be done to it.

    chain: of IPv6, hop-by-hop options and what stands behind them; the last header's next header is set.
    """
    payload = random.Random(kind.length).randbytes(kind.length)
    transport = UDP(sport=7, dport=8) if kind.udp else TCP(sport=7, dport=8, seq=5, flags=kind.flags)
    headers = {"id": 0xFFFE} if kind.ip is IP else {}
    network = bytes(kind.ip(**ADDRESSES[kind.ip], **headers) / transport / Raw(payload))
    if chain:
        chain = linked(chain, network[6])
        network = (
            network[:4]
            + struct.pack("!HB", len(network) - 40 + len(chain), 0)
            + network[7:40]
            + (chain + network[40:])
        )
    start = 14 + len(tag) + (20 if kind.ip is IP else 40) + len(chain)
    offset, header = (6, 8) if kind.udp else (16, 20)
    frame = bytearray(to + source + tag + ETHERTYPE[kind.ip] + network)
    struct.pack_into("!H", frame, start + offset, pseudo_sum(frame, start, 17 if kind.udp else 6))
    cut = kind.offload is not None
    return bytes(frame), Offload(
        start, offset, kind.mss if cut else 0, start + header + (kind.offload or 0) if cut else 0
    )


def linked(chain: bytes, protocol: int) -> bytes:
    """Extension headers, the last of which says that `protocol` follows."""
    last = at = 0
    while at < len(chain):
        last, at = at, at + (chain[at + 1] + 1) * 8
    return chain[:last] + bytes([protocol]) + chain[last + 1 :]


def vnet_header(kind: Kind, offload: Offload) -> bytes:
    """The virtio-net header that a sender puts in front."""
    return struct.pack(
        "<BBHHHHH",
        VnetFlag.VNET_F_NEEDS_CSUM,
        kind.gso,
        0,
        offload.mss,
        offload.csum_start,
        offload.csum_offset,
        0,
    )


assert VNET_HEADER_DTYPE.itemsize == struct.calcsize("<BBHHHHH")


# --- what the NIC makes of it -------------------------------------------------------------------------------


def network_offset(frame: bytes) -> int:
    """Behind Ethernet and its tags."""
    at = 14
    while frame[at - 2 : at] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return at


def next_header(frame: bytes, start: int) -> int:
    """Where the byte is that says what stands at `start` in an IPv6 packet."""
    at = network_offset(frame)
    field, at = at + 6, at + 40
    while at < start:
        field, at = at, at + (frame[at + 1] + 1) * 8
    return field


def pseudo_sum(frame: bytes, start: int, protocol: int) -> int:
    at = network_offset(frame)
    addresses = frame[at + 12 : at + 20] if frame[at] >> 4 == 4 else frame[at + 8 : at + 40]
    return fold(bytes(addresses) + struct.pack("!II", len(frame) - start, protocol))


def finished(frame: bytes, offload: Offload) -> list[bytes]:
    """The frames that are on a wire when all has been done; an IPv6 fragment's identification is 0."""
    kind, hdr_len = offload.hdr_len & KIND, offload.hdr_len & HDR_LEN
    if offload.mss == 0:
        return [completed(frame, offload)]
    if kind == OffloadKind.OFFLOAD_UDP_FRAGMENTS:
        return fragments(frame, offload)
    segments = []
    for number, at in enumerate(range(hdr_len, len(frame), offload.mss)):
        part = bytearray(frame[:hdr_len] + frame[at : at + offload.mss])
        start = offload.csum_start
        if kind == OffloadKind.OFFLOAD_TCP:
            (seq,) = struct.unpack_from("!I", part, start + 4)
            struct.pack_into("!I", part, start + 4, (seq + at - hdr_len) % 2**32)
            part[start + 13] &= ~CWR if number else 0xFF
            part[start + 13] &= 0xFF if at + offload.mss >= len(frame) else ~(FIN | PSH) & 0xFF
        else:
            struct.pack_into("!H", part, start + 4, len(part) - start)
        (partial,) = struct.unpack_from("!H", frame, start + offload.csum_offset)
        partial = exchanged(partial, len(frame) - start, len(part) - start)
        struct.pack_into("!H", part, start + offload.csum_offset, partial)
        segments.append(completed(with_network(part, start, number), offload))
    return segments


def completed(frame: bytes, offload: Offload) -> bytes:
    start, at = offload.csum_start, offload.csum_start + offload.csum_offset
    value = checksum(frame[start:])
    if value == b"\0\0" and offload.csum_offset == 6:
        value = b"\xff\xff"
    return frame[:at] + value + frame[at + 2 :]


def with_network(part: bytearray, start: int, number: int = 0, fragment: int | None = None) -> bytes:
    """With the IP header of a packet of this length: the `number`-th segment, or a fragment's."""
    at = network_offset(part)
    if part[at] >> 4 == 6:
        struct.pack_into("!H", part, at + 4, len(part) - at - 40)
        return bytes(part)
    (identification,) = struct.unpack_from("!H", part, at + 4)
    struct.pack_into("!HH", part, at + 2, len(part) - at, (identification + number) & 0xFFFF)
    if fragment is not None:
        struct.pack_into("!H", part, at + 6, fragment)
    part[at + 10 : at + 12] = bytes(2)
    part[at + 10 : at + 12] = checksum(bytes(part[at:start]))
    return bytes(part)


def exchanged(partial: int, before: int, now: int) -> int:
    """The sum of a pseudo header in which the length of a packet is exchanged (RFC 1624)."""
    return (partial - before + now) % 0xFFFF


def fragments(frame: bytes, offload: Offload) -> list[bytes]:
    start, mss = offload.csum_start, offload.mss & ~7
    if offload.csum_offset:
        whole = bytearray(frame)
        struct.pack_into("!H", whole, start + 4, len(frame) - start)
        frame = completed(bytes(whole), offload)
    if len(frame) - start <= mss:
        return [with_network(bytearray(frame), start)]
    parts = []
    for offset in range(0, len(frame) - start, mss):
        more = start + offset + mss < len(frame)
        data = frame[start + offset : start + offset + mss]
        head = bytearray(frame[:start])
        at = network_offset(frame)
        if head[at] >> 4 == 4:
            parts.append(with_network(head + data, start, 0, offset // 8 | more << 13))
        else:
            head[next_header(frame, start)] = 44
            extension = struct.pack("!BBHI", 17, 0, offset | more, 0)
            parts.append(with_network(head + extension + data, start))
    return parts


def without_identification(frame: bytes) -> bytes:
    """An IPv6 fragment with identification 0; any other frame as it is."""
    at = network_offset(frame)
    if frame[at] >> 4 != 6:
        return frame
    protocol, at = frame[at + 6], at + 40
    while protocol in EXTENSIONS:
        protocol, at = frame[at], at + (frame[at + 1] + 1) * 8
    return frame[: at + 4] + bytes(4) + frame[at + 8 :] if protocol == 44 else frame
