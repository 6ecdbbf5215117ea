"""Large TCP segments as a host leaves them: the checksum field holds the sum of the pseudo header alone."""

from __future__ import annotations

import random
import struct

from cdna.nic.wire import Offload

HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
IPV4, IPV6 = 0x0800, 0x86DD
ETHERNET, TCP_HEADER = 14, 20
VNET_GSO = {IPV4: 1, IPV6: 4}


def large_segment(length: int, mss: int, version: int = IPV4, flow: int = 0) -> tuple[bytes, Offload]:
    """A frame with `length` bytes of payload, to be cut every `mss` bytes; 0: only its checksum is due."""
    size = TCP_HEADER + length
    if version == IPV4:
        addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 7, 0x4000, 64, 6, 0) + addresses
        ip = ip[:10] + checksum(ip) + ip[12:]
    else:
        addresses = bytes.fromhex("fd" + "00" * 14 + "01" + "fd" + "00" * 14 + "02")
        ip = struct.pack("!IHBB", 6 << 28, size, 6, 64) + addresses
    pseudo = fold(addresses + struct.pack("!IHH", size, 0, 6))
    tcp = struct.pack("!HHIIBBHHH", 1000 + flow, 2000, 5, 9, 0x50, 0x18, 500, pseudo, 0)
    frame = (
        THERE + HERE + struct.pack("!H", version) + ip + tcp + random.Random(length + flow).randbytes(length)
    )
    start = ETHERNET + len(ip)
    return frame, Offload(start, 16, mss, start + TCP_HEADER if mss else 0)


def fold(data: bytes) -> int:
    """The one's complement sum of 16-bit words (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> bytes:
    return struct.pack("!H", ~fold(data + b"\0" * (len(data) & 1)) & 0xFFFF)


def payload(segment: bytes, offload: Offload) -> bytes:
    """Of a segment cut from a frame with this offload; checks its TCP checksum."""
    start = offload.csum_start
    tcp, source = segment[start:], 26 if start == ETHERNET + 20 else 22
    pseudo = segment[source : start if start == ETHERNET + 20 else source + 32] + struct.pack(
        "!IHH", len(tcp), 0, 6
    )
    assert checksum(pseudo + tcp) == b"\0\0"
    return tcp[TCP_HEADER:]
