"""The native driver of a guest in a process of its own: it maps what was given to it, no more."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from typing import Any, Unpack

from cdna import abi
from cdna.base.closing import Closing
from cdna.errors import ConfigError, ContextFault, Refused, ResourceError
from cdna.faults import FaultReport, refusal_text
from cdna.guest_driver.queues import memory_needed
from cdna.guest_driver.remote_queues import Mapping, RemoteQueues
from cdna.protocol.attach import REQUEST_BYTES, VERSION
from cdna.protocol.hypercall import Hypercall
from cdna.settings import ContextSettings, Settings

_ANSWER_BYTES = 65536
_SHARED = 4  # descriptors that come with the answer: memory, page, rings, virtual interrupts
_STATUS = int(Hypercall.HYPERCALL_STATUS).to_bytes(2, "little") + bytes(14)


class RemoteContext:
    """A context as its guest sees it from another process."""

    def __init__(self, sock: socket.socket, geometry: dict[str, Any], event_fd: int) -> None:
        self.index: int = geometry["context"]
        self.event_fd = event_fd
        self._sock = sock

    def _status(self) -> dict[str, Any]:
        try:
            self._sock.sendall(_STATUS)
            answer = self._sock.recv(_ANSWER_BYTES)
        except OSError as error:
            raise _gone(self.index, error.strerror) from None
        if not answer:
            raise _gone(self.index)
        status: dict[str, Any] = json.loads(answer)
        return status

    @property
    def state(self) -> abi.ContextState:
        return abi.ContextState(self._status()["state"])

    @property
    def mac(self) -> str:
        return str(self._status()["mac"])

    @property
    def fault(self) -> FaultReport | None:
        """Why the NIC stopped the context, if it did."""
        fault = self._status()["fault"]
        if fault is None:
            return None
        return FaultReport(**{**fault, "reason": abi.Fault(fault["reason"]), "ring": abi.Ring(fault["ring"])})

    def stats(self) -> dict[str, int]:
        """Counters since the assignment, as `Context.stats`."""
        stats: dict[str, int] = self._status()["stats"]
        return stats


class RemoteDriver(Closing, RemoteQueues):
    """Drives one context for its guest, in a process of its own, by the VMM that serves at `path`.

        with RemoteDriver("/run/cdna.sock", name="web") as driver:
            driver.send([frame])
            driver.wait(1)
            frames = driver.recv()

    path: of the VMM's socket (`Machine.serve`), or a socket that is connected to it.
    memory: bytes of the guest; None: what the driver needs. buffer_size: bytes of one buffer, a multiple of
    64. settings: those of `ContextSettings` that the VMM lets a guest choose, such as tx_ring, rx_ring.
    Errors: ConfigError, ResourceError.
    """

    context: RemoteContext

    def __init__(
        self,
        path: str | os.PathLike[str] | socket.socket,
        *,
        name: str,
        memory: int | None = None,
        buffer_size: int = 2048,
        **settings: Unpack[Settings],
    ) -> None:
        wanted = ContextSettings.of(**settings)
        needed = memory_needed(wanted.tx_ring, wanted.rx_ring, buffer_size)
        request = {"version": VERSION, "name": name, "memory": memory or needed, "settings": settings}
        self._sock = path if isinstance(path, socket.socket) else _connect(os.fspath(path))
        fds: list[int] = []  # that nobody else closes
        try:
            geometry, fds = _attach(self._sock, request)
            self._event_fd = fds[-1]
            validated = geometry["protection"] == abi.Protection.PROTECTION_VALIDATED
            memory_file, page, rings = (Mapping(fds.pop(0), rw) for rw in (True, True, not validated))
            super().__init__(self._sock.fileno(), geometry, memory_file, page, rings, buffer_size)
            self.context = RemoteContext(self._sock, geometry, self._event_fd)
            self.refill()
        except BaseException:  # such as a VMM that ends meanwhile
            self._sock.close()
            for fd in fds:
                os.close(fd)
            raise

    def wait(self, timeout: float | None = None) -> bool:
        """Sleeps until something was received, by interrupt. False: `timeout` seconds passed first.

        ContextFault: the context was stopped. ResourceError: the VMM has taken it away, or has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._event_fd, select.POLLIN)
        poller.register(self._sock, select.POLLIN)
        self.enable_interrupts(True)
        try:
            while not self.rx_waiting:
                if self.lost:
                    raise _gone(self.context.index, os.strerror(self.lost))
                if self.faulted:
                    fault = self.context.fault
                    raise ContextFault(str(fault), fault)
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                ready = {fd for fd, _ in poller.poll(left)}
                if self._sock.fileno() in ready:  # nobody asked: it can only have been closed
                    raise _gone(self.context.index)
                if not ready:
                    return False
                self._take_events()
        finally:
            self.enable_interrupts(False)
        return True

    def _take_events(self) -> None:
        """Reads the virtual interrupts that were posted: what the rings say is what counts."""
        try:
            while os.read(self._event_fd, 8):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Gives the context back and ends the guest. What was mapped stays, as memory of nobody else."""
        if self._sock.fileno() >= 0:
            self.lost = 107  # ENOTCONN
            self._sock.close()
            os.close(self._event_fd)

    def _refused(self, reason: int) -> None:
        if self.lost:
            raise _gone(self.context.index, os.strerror(self.lost))
        if self.faulted:
            fault = self.context.fault
            raise ContextFault(f"hypercall refused, the context is stopped: {fault}", fault)
        index, page = self.refused
        raise Refused(f"hypercall refused: {refusal_text(reason, page)}", reason, index, page)


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise ResourceError(f"no VMM at {path!r}: {error.strerror}; give the path of Machine.serve") from None
    return sock


def _attach(sock: socket.socket, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Asks for a guest and a context: the geometry, and the descriptors of what to map."""
    payload = json.dumps(request).encode()
    if len(payload) > REQUEST_BYTES:
        raise ConfigError(f"settings of {len(payload)} bytes: a request has at most {REQUEST_BYTES}")
    try:
        sock.sendall(payload)
        answer, fds, _, _ = socket.recv_fds(sock, _ANSWER_BYTES, _SHARED, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise ResourceError(f"the VMM ended the connection: {error.strerror}") from None
    reply = (
        json.loads(answer) if answer else {"error": "ResourceError", "message": "it closed the connection"}
    )
    if "error" in reply or len(fds) != _SHARED:
        for fd in fds:
            os.close(fd)
        kind = ConfigError if reply.get("error") == "ConfigError" else ResourceError
        raise kind(
            f"the VMM refused the guest: {reply.get('message', 'no descriptors came with its answer')}"
        )
    return reply, fds


def _gone(index: int, why: str | None = None) -> ResourceError:
    reason = f" ({why})" if why else ""
    return ResourceError(
        f"context {index} is no longer this guest's: the VMM has taken it away, or ended{reason}"
    )
