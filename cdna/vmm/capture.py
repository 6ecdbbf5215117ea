"""Captures: which contexts are in one, by the names of their guests, and a file that is written meanwhile.

"all"      every context, also those that come later
"g1"       the contexts of guest g1, also those that it gets later
"g1.3"     context 3, while it is g1's
"3"        context 3, whoever has it
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cdna.base.closing import Closing
from cdna.base.units import parse_mac
from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.nic.capture_file import Recording, create
from cdna.nic.capture_reader import CaptureReader
from cdna.nic.capture_ring import DEFAULT_SIZE, CaptureRing

if TYPE_CHECKING:
    from types import TracebackType

    from cdna.vmm.domain import Context
    from cdna.vmm.hypervisor import Hypervisor

ALL = "all"


def context_name(context: Context) -> str:
    """What a context's interface is called in a capture."""
    return f"{context.guest.name}.{context.index}"


def _names(context: Context) -> set[str]:
    return {ALL, context.guest.name, context_name(context), str(context.index)}


class ContextCapture:
    """Captures contexts into a `CaptureRing`, until `close`.

    contexts: "all", or names as above; each has to be one of now. snaplen: bytes kept of a frame, 0: all.
    buffer: bytes of the ring. Raises ConfigError, ResourceError.
    """

    def __init__(
        self,
        vmm: Hypervisor,
        contexts: str | Sequence[str] = ALL,
        *,
        snaplen: int = 0,
        buffer: int = DEFAULT_SIZE,
    ) -> None:
        vmm.check_open()
        self.vmm = vmm
        self.contexts = _check(vmm, contexts)
        self.ring = CaptureRing(vmm.nic, size=buffer, snaplen=snaplen)
        try:
            vmm.watch_contexts(self._look_at)
        except BaseException:
            self.ring.close()
            raise

    def _look_at(self, context: Context) -> None:
        """A context that is there, or that starts, or that has another address."""
        if self.contexts & _names(context):
            self.ring.add(context.index, context_name(context), parse_mac(context.mac))
        else:
            self.ring.remove(context.index)

    def close(self) -> None:
        """Ends the capture; what is in the ring stays for its reader. Closing twice is harmless."""
        self.vmm.unwatch_contexts(self._look_at)
        self.ring.close()


def _check(vmm: Hypervisor, contexts: object) -> frozenset[str]:
    wanted = [contexts] if isinstance(contexts, str) else contexts
    if not isinstance(wanted, Sequence) or not all(isinstance(name, str) for name in wanted):
        raise ConfigError(f"contexts {contexts!r:.80}: give a list of names, or {ALL!r}")
    if not wanted:
        raise ConfigError(f"a capture of no context: give names, or {ALL!r}")
    with vmm.contexts_locked() as present:
        known = {ALL, *vmm.guests}.union(*map(_names, present))
        there = ", ".join(sorted({context.guest.name for context in present})) or "there is none yet"
    for name in wanted:
        if name not in known:
            raise ConfigError(f"no guest or context {name!r:.80} to capture: give {ALL}, or one of {there}")
    return frozenset(wanted)


class FileCapture(Closing):
    """A capture that a thread writes to a pcapng file. `Machine.capture` makes it; `with` closes it."""

    def __init__(
        self,
        vmm: Hypervisor,
        path: str | os.PathLike[str],
        contexts: str | Sequence[str] = ALL,
        *,
        snaplen: int = 0,
        buffer: int = DEFAULT_SIZE,
    ) -> None:
        self.path = Path(path)
        self._error: BaseException | None = None
        self._capture = ContextCapture(vmm, contexts, snaplen=snaplen, buffer=buffer)
        try:
            reader = CaptureReader(self._capture.ring.fd, snaplen=snaplen)
            self._fd = create(path)
        except BaseException:
            self._capture.close()
            raise
        self._closing = False
        self._recording = Recording(reader, self._fd, stopped=lambda: self._closing)
        self._thread = threading.Thread(target=self._run, name=f"cdna capture {path}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._recording.run(lambda: False)
        except (CdnaError, OSError) as error:
            self._error = error

    @property
    def frames(self) -> int:
        """Frames in the file so far."""
        return self._recording.frames

    @property
    def lost(self) -> int:
        """Frames that were captured faster than they could be written."""
        return self._recording.lost

    def close(self) -> None:
        """Ends the capture with everything in the file. ResourceError: the file is incomplete."""
        if self._fd < 0:
            return
        self._capture.close()
        self._closing = True
        self._thread.join()
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            reason = getattr(self._error, "strerror", None) or str(self._error)
            raise ResourceError(
                f"{self.path}: this capture ends after {self.frames} frames: {reason.lower()};"
                " give a file with room for them"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(ResourceError):  # the first error is the one to be told
            self.close()
