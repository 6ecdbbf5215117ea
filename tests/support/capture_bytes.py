"""Captures made block by block, also wrong ones: pcap and pcapng as bytes, in either byte order."""

from __future__ import annotations

import struct
from dataclasses import dataclass

SECTION, INTERFACE, OLD_PACKET, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
COMMENT, FLAGS, TSRESOL, FCSLEN, TSOFFSET = 1, 2, 9, 13, 14  # options


def frame(number: int, size: int = 60) -> bytes:
    """A frame of an experimental EtherType whose every byte tells its number."""
    return (b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a\x88\xb5" + bytes([number & 0xFF]) * size)[:size]


@dataclass(frozen=True)
class Blocks:
    """The blocks of pcapng in one byte order."""

    order: str = "<"

    def pack(self, format: str, *values: int) -> bytes:
        return struct.pack(self.order + format, *values)

    def block(self, kind: int, body: bytes, *, total: int | None = None, last: int | None = None) -> bytes:
        """total, last: the lengths that its head and its end tell, where they are not the true one."""
        body += bytes(-len(body) % 4)
        total = 12 + len(body) if total is None else total
        return self.pack("II", kind, total) + body + self.pack("I", total if last is None else last)

    def option(self, code: int, value: bytes) -> bytes:
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def section(self, length: int = -1, *, major: int = 1, minor: int = 0, options: bytes = b"") -> bytes:
        return self.block(SECTION, self.pack("IHHq", 0x1A2B3C4D, major, minor, length) + options)

    def interface(
        self,
        *,
        linktype: int = 1,
        snaplen: int = 0,
        tsresol: int | None = None,
        tsoffset: int | None = None,
        fcslen: int | None = None,
        options: bytes = b"",
    ) -> bytes:
        if tsresol is not None:
            options += self.option(TSRESOL, bytes([tsresol]))
        if fcslen is not None:
            options += self.option(FCSLEN, bytes([fcslen]))
        if tsoffset is not None:
            options += self.option(TSOFFSET, self.pack("q", tsoffset))
        if options:
            options += self.option(0, b"")
        return self.block(INTERFACE, self.pack("HHI", linktype, 0, snaplen) + options)

    def enhanced(
        self,
        data: bytes,
        ticks: int = 0,
        *,
        interface: int = 0,
        length: int | None = None,
        options: bytes = b"",
    ) -> bytes:
        head = (
            interface,
            ticks >> 32,
            ticks & 0xFFFFFFFF,
            len(data),
            len(data) if length is None else length,
        )
        return self.block(ENHANCED, self.pack("IIIII", *head) + data + bytes(-len(data) % 4) + options)

    def old(
        self,
        data: bytes,
        ticks: int = 0,
        *,
        interface: int = 0,
        length: int | None = None,
        options: bytes = b"",
    ) -> bytes:
        head = (
            interface,
            0,
            ticks >> 32,
            ticks & 0xFFFFFFFF,
            len(data),
            len(data) if length is None else length,
        )
        return self.block(OLD_PACKET, self.pack("HHIIII", *head) + data + bytes(-len(data) % 4) + options)

    def simple(self, data: bytes, length: int | None = None) -> bytes:
        return self.block(SIMPLE, self.pack("I", len(data) if length is None else length) + data)


def pcap(
    *records: tuple[int, int, bytes],
    order: str = "<",
    magic: int = 0xA1B2C3D4,
    linktype: int = 1,
    version: tuple[int, int] = (2, 4),
    extra: bytes = b"",
    length: int | None = None,
) -> bytes:
    """records: seconds, fractions of a second, bytes. extra: the rest of a record's head (modified pcap)."""
    out = struct.pack(order + "IHHIIII", magic, *version, 0, 0, 65535, linktype)
    for seconds, fraction, data in records:
        wire = len(data) if length is None else length
        out += struct.pack(order + "IIII", seconds, fraction, len(data), wire) + extra + data
    return out
