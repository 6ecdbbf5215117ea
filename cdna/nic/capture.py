"""Capture files, pcap and pcapng, read whole and written frame by frame.

`cdna.nic.capture_walk` reads both. scapy writes pcap, and `cdna.nic.pcapng` pcapng.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scapy.utils import RawPcapWriter

from cdna.base.descriptors import write_patiently
from cdna.errors import CdnaError, ConfigError
from cdna.nic.capture_file import BlockFile, create
from cdna.nic.capture_walk import CaptureWalk
from cdna.nic.captured import CapturedFrames
from cdna.nic.pcapng import PcapngWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

LINKTYPE_ETHERNET = 1
NS = 1_000_000_000
BUFFER = 65536  # bytes of a pcap file that are written at once
PIECE = 1 << 20  # bytes that are read at a time


def read_capture(path: str | Path) -> CapturedFrames:
    """All frames of a pcap or pcapng file (also gzipped), in file order, without their frame check sequences.

    Raises ConfigError: no such file, not a capture, damaged or cut short (the packet number, the offset and
    the bytes missing are named), not Ethernet, a frame that no NIC here carries, or no frame at all.
    """
    walk = CaptureWalk()
    size = 0
    waiting = bytearray()  # what was read of a record or block that is not whole yet
    try:
        for piece in _pieces(path):
            size += len(piece)
            waiting += piece
            del waiting[: walk.feed(waiting)]
        if size < 4:
            raise ConfigError(f"{size} bytes are no capture; give a pcap or pcapng file")
        walk.feed(waiting, last=True)
        if not len(walk.frames):
            raise ConfigError("no packet in this capture; give one with at least one Ethernet frame")
    except CdnaError as error:
        raise type(error)(f"{path}: {error}") from None
    return walk.frames


def _pieces(path: str | Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed, some at a time."""
    try:
        if Path(path).is_char_device():  # /dev/zero has no end
            raise ConfigError("a device, not a capture file; give a pcap or pcapng file")
        with open(path, "rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            source: gzip.GzipFile | io.BufferedReader = gzip.GzipFile(fileobj=file) if packed else file
            while piece := source.read(PIECE):
                yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"damaged gzip file: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read this capture: {error.strerror}") from None


class _Patient(io.RawIOBase):
    """A file that is written as `write_patiently` does it."""

    def __init__(self, fd: int, over: Callable[[], bool]) -> None:
        self._fd = fd
        self._over = over

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        return write_patiently(self._fd, data, self._over)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)


class CaptureWriter:
    """Writes frames with nanoseconds to a new file, pcap or pcapng by its suffix."""

    def __init__(self, path: str | Path, over: Callable[[], bool] = lambda: False) -> None:
        """Raises ConfigError for another suffix and ResourceError if the file cannot be made.

        over: as `BlockFile` takes it.
        """
        self.path = Path(path)
        if self.path.suffix not in (".pcap", ".pcapng"):
            raise ConfigError(f"{path}: cannot tell the format by the suffix; name it .pcap or .pcapng")
        self._pcap: Any = None  # scapy's types know less than it takes
        if self.path.suffix == ".pcapng":
            self._fd = create(path)
            self._blocks = BlockFile(self._fd, over)
            self._pcapng = PcapngWriter()
            return
        file = io.BufferedWriter(_Patient(create(path), over), BUFFER)
        self._pcap = RawPcapWriter(file, linktype=LINKTYPE_ETHERNET, nano=True)

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
