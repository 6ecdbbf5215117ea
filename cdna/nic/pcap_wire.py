"""The pcap wire: replays one capture file and writes another.

Receiving is C in the NIC's thread, from memory. What the NIC sends goes through a bounded queue to a thread
that writes the file; a NIC faster than the disk waits, and no frame is left out.
"""

import atexit
import contextlib
import threading
from pathlib import Path

from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.nic.capture import CaptureWriter, read_capture
from cdna.nic.replay import ReplayWire

SPEEDS = ("full", "recorded")
LOOK_EVERY = 0.001  # seconds between two looks at an empty queue


class PcapWire(ReplayWire):
    """Receives the frames of the capture `read`; writes what is sent to `write`, .pcap or .pcapng.

    speed "full": as fast as the NIC takes them; "recorded": with the capture's own timing. loop: how often
    the capture is replayed, 0: without end. Without `write`, what is sent is discarded and counted in
    tx_lost. A frame that the capture had cut is received as it was captured.

    Raises ConfigError for a capture that cannot be read whole, ResourceError for a file that cannot be
    written. Close it: only then is everything in the file.
    """

    def __init__(
        self,
        read: str | Path | None = None,
        write: str | Path | None = None,
        *,
        speed: str = "full",
        loop: int = 1,
    ) -> None:
        if read is None and write is None:
            raise ConfigError("a pcap wire of no file: give a capture to read, one to write, or both")
        if speed not in SPEEDS:
            raise ConfigError(f"speed {speed!r} of a pcap wire: give {' or '.join(SPEEDS)}")
        if read is not None and write is not None and _same_file(read, write):
            raise ConfigError(
                f"{write}: a capture cannot be read and written at once; give another file to write"
            )
        super().__init__(
            read_capture(read) if read is not None else [],
            loop=loop,
            recorded=speed == "recorded",
            keep_sent=write is not None,
        )
        self.name = "pcap"
        self._recorder = _Recorder(self, write) if write is not None else None

    def stats(self) -> dict[str, int]:
        """Wire.stats; frames that a failing disk kept out of the file are in tx_lost."""
        stats = super().stats()
        if self._recorder is not None:
            stats["tx_lost"] += self._recorder.lost
        return stats

    def close(self) -> None:
        """Writes what is left and closes the file. Raises ResourceError if the file is incomplete."""
        super().close()
        if self._recorder is not None:
            self._recorder.close()


def _same_file(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()


class _Recorder:
    """The thread that writes a capture. It is the only one to take frames out of the wire's queue."""

    def __init__(self, wire: PcapWire, path: str | Path) -> None:
        self.lost = 0  # frames
        self._wire = wire
        self._path = path
        self._closing = threading.Event()
        self._writer = CaptureWriter(path, self._closing.is_set)
        self._error: OSError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"cdna capture {path}", daemon=True)
        self._thread.start()
        atexit.register(self._close_at_exit)

    def _run(self) -> None:
        try:
            self._writer.start()
            while self._write_some():
                pass
        except OSError as error:
            self._fail(error)

    def _write_some(self) -> bool:
        closing = self._closing.is_set()  # before the look: what was sent until then is seen
        frames = self._wire.get_timed()
        for number, (frame, timestamp_ns) in enumerate(frames):
            try:
                self._writer.write(frame, timestamp_ns)
            except OSError:
                self.lost += len(frames) - number
                raise
        if frames:
            return True
        if not closing:
            self._writer.flush()  # a reader of the file sees what an idle wire has sent
            self._closing.wait(LOOK_EVERY)
        return not closing

    def _fail(self, error: OSError) -> None:
        self._error = error
        if not self._wire.closed:
            self._wire.link = False
        while not self._closing.wait(LOOK_EVERY) or self._wire.waiting:
            self.lost += len(self._wire.get())  # the NIC does not wait for a disk that is full

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._close_at_exit)
        self._closing.set()
        self._thread.join()
        try:
            self._writer.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            raise ResourceError(
                f"{self._path}: this capture is incomplete: {self._error.strerror}; {self.lost} frames or"
                " more are missing; give a file with room for them"
            )

    def _close_at_exit(self) -> None:
        with contextlib.suppress(CdnaError):
            self._wire.close()
