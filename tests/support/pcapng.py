"""Reads pcapng as the draft describes it (draft-ietf-opsawg-pcapng), block by block."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
INBOUND, OUTBOUND = 1, 2  # epb_flags


@dataclass
class Interface:
    name: str
    mac: bytes
    snaplen: int
    resolution: int
    received: int | None = None  # of its statistics
    dropped: int | None = None


@dataclass
class Packet:
    interface: str
    timestamp_ns: int
    data: bytes
    length: int
    flags: int | None
    comment: str

    @property
    def outbound(self) -> bool:
        return self.flags == OUTBOUND


@dataclass
class Capture:
    interfaces: list[Interface] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)

    def of(self, name: str) -> list[Packet]:
        return [packet for packet in self.packets if packet.interface == name]

    def interface(self, name: str) -> Interface:
        (found,) = (interface for interface in self.interfaces if interface.name == name)
        return found


def _options(data: bytes) -> dict[int, bytes]:
    options, at = {}, 0
    while at < len(data):
        code, size = struct.unpack_from("<HH", data, at)
        if code == 0:
            assert size == 0
            assert at + 4 == len(data)
            break
        options[code] = data[at + 4 : at + 4 + size]
        at += 4 + -(-size // 4) * 4
    return options


def read_blocks(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each block; asserts that the last one is whole."""
    blocks, at = [], 0
    while at < len(data):
        assert len(data) - at >= 12, "cut short"
        kind, total = struct.unpack_from("<II", data, at)
        assert total % 4 == 0
        assert 12 <= total <= len(data) - at, "cut short"
        assert struct.unpack_from("<I", data, at + total - 4) == (total,)
        blocks.append((kind, data[at + 8 : at + total - 4]))
        at += total
    return blocks


def read_pcapng(source: bytes | Path) -> Capture:
    capture = Capture()
    for number, (kind, body) in enumerate(
        read_blocks(source if isinstance(source, bytes) else source.read_bytes())
    ):
        assert (kind == SECTION) == (number == 0)
        if kind == INTERFACE:
            link, _, snaplen = struct.unpack_from("<HHI", body)
            assert link == 1
            options = _options(body[8:])
            capture.interfaces.append(
                Interface(options.get(2, b"").decode(), options.get(6, b""), snaplen, options[9][0])
            )
        elif kind == PACKET:
            capture.packets.append(_packet(capture, body))
        elif kind == STATISTICS:
            options = _options(body[12:])
            interface = capture.interfaces[struct.unpack_from("<I", body)[0]]
            interface.received, interface.dropped = (struct.unpack("<Q", options[c])[0] for c in (4, 5))
    return capture


def _packet(capture: Capture, body: bytes) -> Packet:
    number, high, low, kept, length = struct.unpack_from("<IIIII", body)
    interface = capture.interfaces[number]
    assert interface.resolution == 9
    options = _options(body[20 + -(-kept // 4) * 4 :])
    flags = struct.unpack("<I", options[2])[0] if 2 in options else None
    return Packet(
        interface.name, high << 32 | low, body[20 : 20 + kept], length, flags, options.get(1, b"").decode()
    )
