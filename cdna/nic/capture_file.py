"""From a capture's ring to a pcapng file or a pipe: whole blocks, also where the disk is full."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable

from cdna.base.descriptors import write_patiently, write_whole
from cdna.errors import ResourceError
from cdna.nic.capture_reader import CaptureReader
from cdna.nic.pcapng import PcapngWriter, whole_blocks

NAP = 0.001  # seconds between two looks at an empty ring: the engine wakes nobody


def create(path: str | os.PathLike[str]) -> int:
    """A new capture file, or one emptied, for its owner alone. Raises ResourceError."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResourceError(f"{path}: cannot write this capture: {reason}") from None


class BlockFile:
    """Writes what a `PcapngWriter` holds to a descriptor. A file that cannot be gone on with ends with a
    whole block: what was written of the next one is cut off.

    over: says when a pipe whose reader takes nothing is waited for no longer; TimeoutError then.
    """

    def __init__(self, fd: int, over: Callable[[], bool] = lambda: False) -> None:
        self.fd = fd
        self.over = over
        self.packets = 0  # whole ones, in the file
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        if self._is_file and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
            os.lseek(fd, 0, os.SEEK_END)  # where the first block goes

    def write(self, writer: PcapngWriter) -> None:
        """Writes all of it and clears the writer, also where it raises OSError: the disk is full, or the pipe
        was closed."""
        start = self._at()
        try:
            with writer.view() as blocks:
                end = len(blocks)
                try:
                    self._write(blocks)
                except BaseException:
                    end = self._at() - start
                    raise
                finally:
                    whole, packets = whole_blocks(blocks, end)
                    self.packets += packets
                    if whole < end:
                        os.ftruncate(self.fd, start + whole)
        finally:
            writer.clear()

    def _at(self) -> int:
        """Where a file is written next; 0 where that cannot be told, of a pipe."""
        return os.lseek(self.fd, 0, os.SEEK_CUR) if self._is_file else 0

    def _write(self, blocks: memoryview) -> None:
        if self._is_file:
            write_whole(self.fd, blocks)
        else:
            write_patiently(self.fd, blocks, self.over)


class Recording:
    """Moves what a ring holds to a descriptor, as pcapng, until it is told to end.

    limit: frames, 0: no limit. stopped: as `over` of `BlockFile`. The section's header is written at once,
    the interfaces as they appear, and statistics with the frames that were lost by `run` at the end.
    """

    def __init__(
        self, reader: CaptureReader, fd: int, *, limit: int = 0, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.reader = reader
        self.limit = limit
        self._file = BlockFile(fd, stopped)
        self._writer = PcapngWriter(application="cdna capture")
        self._start_ns = time.time_ns()

    @property
    def frames(self) -> int:
        """Frames in the file."""
        return self._file.packets

    @property
    def lost(self) -> int:
        """Frames that the ring had no room for."""
        return self.reader.lost

    @property
    def full(self) -> bool:
        return bool(self.limit) and self.reader.frames >= self.limit

    def step(self) -> int:
        """Writes what there is, up to a buffer full. Returns frames; raises OSError and ResourceError."""
        moved = self.reader.transfer(self._writer, self.limit - self.reader.frames if self.limit else 0)
        if self._writer.used:
            self._file.write(self._writer)
        return moved

    def run(self, over: Callable[[], bool], nap: Callable[[], object] = lambda: time.sleep(NAP)) -> None:
        """Writes until `over()`, the ring's end or the limit: everything that was captured until then."""
        end: int | None = None
        while not self.full:
            if end is None and (self.reader.ended or over()):  # before the look, which then sees everything
                end = self.reader.produced
            moved = self.step()
            if end is not None and self.reader.consumed >= end:
                break
            if not moved:
                nap()
        self.finish()

    def finish(self) -> None:
        """Writes the statistics of each interface."""
        now = time.time_ns()
        for count in self.reader.counts():
            received = count.written + count.lost
            while not self._writer.add_statistics(
                count.interface, received=received, lost=count.lost, start_ns=self._start_ns, end_ns=now
            ):
                self._file.write(self._writer)
        self._file.write(self._writer)
