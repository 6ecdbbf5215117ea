"""Captures of a running lab: what its control socket answers, and the program that asks.

{"command": "capture", "contexts": ["g1"] | "all", "snaplen": 0, "buffer": 67108864}
    starts a capture that lasts as long as the connection; the descriptor beside the reply is that of
    the ring's memory file (capture_ring.pxd), in which frames and interfaces follow
{"command": "capture-interfaces", "first": 0}
    {"interfaces": [{"name": "g1.0", "guest": "g1", "context": 0, "mac": "02:..."}, ...], "next": null}
    from context `first` on; `next` is where to go on, or null
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cdna.base.closing import Closing
from cdna.errors import ConfigError, whole
from cdna.lab.control import ControlClient, Session
from cdna.nic.capture_file import NAP
from cdna.nic.capture_reader import CaptureReader
from cdna.nic.capture_ring import DEFAULT_SIZE, MAX_SNAPLEN
from cdna.vmm.capture import ALL, ContextCapture, context_name

if TYPE_CHECKING:
    from cdna.machine import Machine
    from cdna.vmm.domain import Context

    Handler = Callable[[dict[str, Any], Session], Mapping[str, Any]]

MAX_BUFFER = 1 << 30  # bytes that a client may have the lab lock into memory
INTERFACES = 256  # in one reply
KNOWN = {"command", "contexts", "snaplen", "buffer"}


def capture_handlers(lab: Any) -> dict[str, Handler]:
    """The commands above, for the control socket of a lab, or of a `Machine`."""
    machine: Machine = getattr(lab, "machine", lab)

    def capture(request: dict[str, Any], session: Session) -> Mapping[str, Any]:
        unknown = sorted(request.keys() - KNOWN)
        if unknown:
            raise ConfigError(f"capture: unknown field {unknown[0]!r:.80}; give {', '.join(sorted(KNOWN))}")
        started = ContextCapture(
            machine.vmm,
            request.get("contexts", ALL),
            snaplen=whole("snaplen", request.get("snaplen", 0), 0, 1 << 31),
            buffer=whole("buffer", request.get("buffer", DEFAULT_SIZE), 1, MAX_BUFFER),
        )
        session.on_close(started.close)
        session.fds = [started.ring.fd]
        return {"snaplen": started.ring.snaplen, "buffer": started.ring.size}

    def interfaces(request: dict[str, Any], session: Session) -> Mapping[str, Any]:
        first = whole("first", request.get("first", 0), 0, 1 << 31)
        with machine.vmm.contexts_locked() as contexts:
            there = sorted((c for c in contexts if c.index >= first), key=lambda c: c.index)
            shown = [_interface(context) for context in there[:INTERFACES]]
        rest = there[INTERFACES:]
        return {"interfaces": shown, "next": rest[0].index if rest else None}

    return {"capture": capture, "capture-interfaces": interfaces}


def _interface(context: Context) -> dict[str, object]:
    return {
        "name": context_name(context),
        "guest": context.guest.name,
        "context": context.index,
        "mac": context.mac,
    }


def list_interfaces(socket: str | None = None) -> list[dict[str, Any]]:
    """The contexts of the lab at `socket` that can be captured. Raises CdnaError."""
    listed: list[dict[str, Any]] = []
    first: int | None = 0
    with ControlClient(socket) as client:
        while first is not None:
            reply, _ = client.call("capture-interfaces", first=first)
            listed += reply["interfaces"]
            first = reply["next"]
    return listed


class LabCapture(Closing):
    """A capture of the lab at `socket`, read in this process; it lasts until `close` or the lab's end."""

    def __init__(
        self,
        socket: str | None,
        contexts: str | Sequence[str],
        *,
        snaplen: int = 0,
        buffer: int = DEFAULT_SIZE,
    ) -> None:
        self._client = ControlClient(socket)
        try:
            wanted = contexts if isinstance(contexts, str) else list(contexts)
            reply, fds = self._client.call("capture", contexts=wanted, snaplen=snaplen, buffer=buffer)
            try:
                kept = int(reply["snaplen"])
                self.reader = CaptureReader(fds[0], snaplen=kept if kept < MAX_SNAPLEN else 0)
            finally:
                for fd in fds:
                    os.close(fd)
        except BaseException:
            self._client.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._client.sock, select.POLLIN | select.POLLHUP)

    def over(self) -> bool:
        """Whether the lab has ended: nothing else comes on this connection."""
        return bool(self._poll.poll(0))

    def nap(self) -> None:
        """Waits for the lab's end, and not for long."""
        self._poll.poll(NAP * 1000)

    def close(self) -> None:
        self._client.close()
