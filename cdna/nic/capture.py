"""Capture files, pcap and pcapng, read whole and written frame by frame.

scapy reads both and writes pcap; pcapng is written by `cdna.nic.pcapng`, which keeps the nanoseconds.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from scapy.error import Scapy_Exception
from scapy.utils import RawPcapNgReader, RawPcapReader, RawPcapWriter

from cdna.errors import ConfigError, ResourceError
from cdna.nic.capture_file import BlockFile, create
from cdna.nic.pcapng import PcapngWriter

LINKTYPE_ETHERNET = 1
MIN_FRAME, MAX_FRAME = 14, 9018  # bytes; Limits of cdna.abi
NS = 1_000_000_000

OPEN_STREAM: Any = RawPcapReader  # pcapng as well, and of any stream; scapy's types know neither

PCAP_MAGICS = {0xA1B2C3D4, 0xA1B23C4D}  # microseconds, nanoseconds
PCAPNG_SECTION = 0x0A0D0D0A  # Section Header Block; reads the same in both byte orders
PCAPNG_BYTE_ORDER = 0x1A2B3C4D
PCAPNG_PACKETS = {2, 3, 6}  # obsolete, simple and enhanced packet blocks


class CapturedFrame(NamedTuple):
    """One frame of a capture."""

    data: bytes  # as captured; shorter than wire_length if the capture was cut by a snapshot length
    timestamp_ns: int  # since 1970; 0 where the file has none
    wire_length: int  # bytes


def read_capture(path: str | Path) -> list[CapturedFrame]:
    """All frames of a pcap or pcapng file (also gzipped), in file order.

    Raises ConfigError: no such file, not a capture, cut short (the packet number, the offset and the bytes
    missing are named), not Ethernet, a frame that no NIC here carries, or no frame at all.
    """
    data = _read_file(path)
    _check_complete(path, data)
    frames = []
    try:
        with OPEN_STREAM(io.BytesIO(data)) as reader:
            for number, (frame, meta) in enumerate(reader, 1):
                frames.append(_captured(path, number, reader, frame, meta))
    except Scapy_Exception as error:
        raise ConfigError(f"{path}: not a capture file: {error}; give a pcap or pcapng file") from None
    if not frames:
        raise ConfigError(f"{path}: no packet in this capture; give one with at least one Ethernet frame")
    return frames


def _read_file(path: str | Path) -> bytes:
    try:
        if Path(path).is_char_device():  # /dev/zero has no end
            raise ConfigError(f"{path}: a device, not a capture file; give a pcap or pcapng file")
        data = Path(path).read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}: damaged gzip file: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this capture: {error.strerror}") from None


def _captured(path: str | Path, number: int, reader: RawPcapReader, frame: bytes, meta: Any) -> CapturedFrame:
    if isinstance(reader, RawPcapNgReader):
        linktype = meta.linktype
        ticks = (meta.tshigh or 0) << 32 | (meta.tslow or 0)
        timestamp = ticks * NS // meta.tsresol
    else:
        linktype = reader.linktype & 0xFFFF  # the upper bits tell of a frame check sequence
        timestamp = meta.sec * NS + meta.usec * (1 if reader.nano else 1000)
    if timestamp >> 63:
        raise ConfigError(f"{path}: packet {number} is of the year 2262 or later; nanoseconds end there")
    if linktype != LINKTYPE_ETHERNET:
        raise ConfigError(
            f"{path}: packet {number} has link type {linktype}; only Ethernet (1) is carried here"
        )
    length = max(meta.wirelen, len(frame))
    for size in (len(frame), length):
        if not MIN_FRAME <= size <= MAX_FRAME:
            raise ConfigError(
                f"{path}: packet {number} has {size} bytes; frames of {MIN_FRAME} to {MAX_FRAME} are carried"
                " (capture with segmentation offload off)"
            )
    return CapturedFrame(frame, timestamp, length)


def _check_complete(path: str | Path, data: bytes) -> None:
    """Walks the records, because scapy's readers take a cut file for one that ends there."""
    if len(data) < 4:
        raise ConfigError(f"{path}: {len(data)} bytes are no capture; give a pcap or pcapng file")
    little, big = struct.unpack("<I", data[:4])[0], struct.unpack(">I", data[:4])[0]
    if little == PCAPNG_SECTION:
        _walk_pcapng(path, data)
    elif little in PCAP_MAGICS or big in PCAP_MAGICS:
        _walk_pcap(path, data, "<" if little in PCAP_MAGICS else ">")
    else:
        raise ConfigError(
            f"{path}: not a capture file: it starts with {data[:4].hex()}; give a pcap or pcapng file"
        )


def _need(path: str | Path, data: bytes, what: str, offset: int, size: int) -> None:
    if size > len(data) - offset:
        raise ConfigError(
            f"{path}: cut short in {what} at offset {offset}:"
            f" {size - (len(data) - offset)} of {size} bytes missing"
        )


def _walk_pcap(path: str | Path, data: bytes, order: str) -> None:
    """A 24-byte file header, then records: a 16-byte header, the captured length at 8, and the data."""
    _need(path, data, "the file header", 0, 24)
    offset, number = 24, 1
    while offset < len(data):
        _need(path, data, f"the header of packet {number}", offset, 16)
        size = struct.unpack_from(order + "I", data, offset + 8)[0]
        _need(path, data, f"packet {number}", offset + 16, size)
        offset += 16 + size
        number += 1


def _walk_pcapng(path: str | Path, data: bytes) -> None:
    """Blocks: type, total length, body, total length again, each block with its section's byte order."""
    offset, number, order = 0, 1, "<"
    while offset < len(data):
        where = f"the block before packet {number}"
        _need(path, data, where, offset, 12)
        if data[offset : offset + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if struct.unpack_from("<I", data, offset + 8)[0] == PCAPNG_BYTE_ORDER else ">"
        kind, size = struct.unpack_from(order + "II", data, offset)
        if size < 12 or size % 4:
            raise ConfigError(f"{path}: damaged at offset {offset}: a pcapng block of {size} bytes")
        if kind in PCAPNG_PACKETS:
            where = f"packet {number}"
            number += 1
        _need(path, data, where, offset, size)
        offset += size


class CaptureWriter:
    """Writes frames with nanoseconds to a new file, pcap or pcapng by its suffix."""

    def __init__(self, path: str | Path) -> None:
        """Raises ConfigError for another suffix and ResourceError if the file cannot be made."""
        self.path = Path(path)
        if self.path.suffix not in (".pcap", ".pcapng"):
            raise ConfigError(f"{path}: cannot tell the format by the suffix; name it .pcap or .pcapng")
        self._pcap: Any = None  # scapy's types know less than it takes
        if self.path.suffix == ".pcapng":
            self._fd = create(path)
            self._blocks = BlockFile(self._fd)
            self._pcapng = PcapngWriter()
            return
        try:
            self._pcap = RawPcapWriter(str(path), linktype=LINKTYPE_ETHERNET, nano=True)
        except OSError as error:
            raise ResourceError(f"{path}: cannot write this capture: {error.strerror}") from None

    def start(self) -> None:
        """Writes the file header, so that a capture of nothing is a capture too. Raises OSError."""
        if self._pcap is not None:
            self._pcap.write_header(None)
        else:
            self._pcapng.add_interface()
        self.flush()

    def write(self, frame: bytes, timestamp_ns: int) -> None:
        """Appends a frame. Raises OSError, as a full disk does, possibly for an earlier frame."""
        if self._pcap is not None:
            self._pcap.write_packet(frame, sec=timestamp_ns // NS, usec=timestamp_ns % NS)
            return
        while not self._pcapng.add_packet(0, timestamp_ns, frame):
            self.flush()

    def flush(self) -> None:
        if self._pcap is not None:
            self._pcap.flush()
        elif self._pcapng.used:
            self._blocks.write(self._pcapng)

    def close(self) -> None:
        """Flushes and closes; the file is closed even where flushing raises OSError."""
        if self._pcap is not None:
            self._pcap.close()
            return
        try:
            self.flush()
        finally:
            os.close(self._fd)
