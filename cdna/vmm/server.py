"""Guests in other processes: a Unix socket on which each connection is one guest with one context.

What a connection goes through:

    connect      the peer's user is checked (SO_PEERCRED)
    request      one JSON message: name, memory, settings; checked by `Policy`
    attach       guest created, its pages in a memory file of their own, a context assigned and exported
    reply        geometry as JSON, with the descriptors of memory, page, rings and virtual interrupts
    hypercalls   binary messages (`cdna.protocol.hypercall`), each answered at once
    end          whoever closes, whatever was malformed: the context revoked, pins dropped, pages freed

One thread serves all connections and waits for none of them. A guest that floods its socket gets one
message carried out in each turn, as everybody does. What takes longer than a hypercall is charged
(`SharedTime`), and who has overdrawn is read later:

    connecting         all who connect, together: those that are refused may each be another user
    attaching, ending  the user: whoever does that again and again may have any name
    HYPERCALL_STATUS   the guest. One that ends leaves its bucket to its user's next guest, so that coming
                       again is no way to a full one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cdna import logs
from cdna.abi import ContextState, Protection
from cdna.base.control_time import ControlTime, SharedTime
from cdna.base.loop import Clock, Session, SessionServer
from cdna.base.sockets import listen, may_connect, peer
from cdna.control_checks import Control, broken
from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.protocol.attach import REQUEST_BYTES, VERSION
from cdna.protocol.hypercall import Malformed
from cdna.vmm.hypercall_buffer import HypercallBuffer, Served
from cdna.vmm.policy import Policy, Request, parse_request

if TYPE_CHECKING:
    from cdna.vmm.domain import Context, Guest
    from cdna.vmm.hypervisor import Hypervisor

log = logs.logger("cdna.vmm")

WAITING = 32  # connections beside those of the guests: they have not made their request yet
PATIENCE = 10.0  # seconds from a connection to its request


class _Connection(Session):
    """A guest's socket, and what was given to it. The deadline is its request's.

    time: what the guest's requests are charged to, once it has attached.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        self.pid, self.uid = peer(sock)
        self.guest: Guest | None = None
        self.context: Context | None = None
        self.time: ControlTime | None = None

    @property
    def whose(self) -> str:
        """Whose lines in the log these are. A guest that comes again may have another name."""
        return f"user {self.uid}" if self.context is None else f"context {self.context.index}"

    def __str__(self) -> str:
        name = f"guest {self.guest.name!r}" if self.guest else "a guest to be"
        return f"{name} (process {self.pid}, user {self.uid})"

    def take_back(self) -> None:
        """Destroys the guest: what its process still maps is nobody else's memory."""
        if self.context is not None:
            self.context.on_revoke = None
        if self.guest is not None:
            self.guest.vmm.destroy_guest(self.guest)
        self.context = self.guest = None

    def close(self) -> None:
        try:
            self.take_back()
        finally:
            super().close()


class Server(SessionServer[_Connection]):
    """Serves guests of other processes on a socket at `path`, until `close`. `Hypervisor.serve` makes it.

    clock, cost: those of `SharedTime`.
    """

    def __init__(
        self,
        vmm: Hypervisor,
        path: str | os.PathLike[str],
        policy: Policy,
        *,
        clock: Clock = time.monotonic,
        cost: Clock = time.thread_time,
    ) -> None:
        self.vmm = vmm
        self.path = os.fspath(path)
        self.policy = policy
        self._shared = SharedTime(policy.control_share, clock=clock, cost=cost)
        self._times: dict[int, ControlTime] = {}  # by user: of those that may connect
        self._left: defaultdict[int, list[ControlTime]] = defaultdict(
            list
        )  # by user: of guests that have gone
        self._buffer = HypercallBuffer(vmm.tables)
        listener = listen(self.path, bool(policy.uids))
        full = f"no more guests on {self.path}"
        super().__init__("cdna-serve", log, listener, self.path, full, clock, arrivals=self._shared.bucket())
        self.begin()

    @property
    def guests(self) -> list[Guest]:
        """The guests that are connected."""
        return [c.guest for c in list(self.sessions.values()) if c.guest is not None]

    # --- the loop -----------------------------------------------------------------------------------------

    def serve(self, session: _Connection, now: float) -> bool:
        """Handles a connection's next message; whatever goes wrong ends this one and no other."""
        try:
            if self._message(session):
                return True
            log.info("%s has gone", session)
        except Malformed as error:
            log.warning("%s sent away: %s", session, error)
        except OSError as error:
            log.warning("%s lost: %s", session, error)
        return False

    def expire(self, session: _Connection, now: float) -> bool:
        log.warning("%s sent away: it made no request", session)
        return False

    def finish(self, session: _Connection) -> None:
        """Ends a connection; what it had goes back, at the cost of its user."""
        if session.time is not None:
            self._left[session.uid].append(session.time)
            session.time = None
        with self._times[session.uid].spent():
            super().finish(session)

    def _message(self, connection: _Connection) -> bool:
        """Handles one message, if there is one. False: the guest has gone."""
        context, guest = connection.context, connection.guest
        if context is None or guest is None or connection.time is None:
            return self._request(connection)
        if broken(Control.CHECK_GUEST_REVOKED, context.revoked):
            return False
        served = self._buffer.serve(connection.fd, guest.domain, context.index)
        if served == Served.SERVED_STATUS:
            with connection.time.spent():
                _send(connection, status(context))
            if self.rest(connection, connection.time):
                log.warning("%s: so many requests that they have to wait", connection)
        return served != Served.SERVED_END

    # --- connecting ---------------------------------------------------------------------------------------

    def admit(self, sock: socket.socket, now: float) -> _Connection | None:
        """Checks who has connected, and listens to them from now on."""
        connection = _Connection(sock, now + PATIENCE)
        if broken(Control.CHECK_GUEST_USER, not may_connect(connection.uid, self.policy.uids)):
            log.warning(
                "%s: process %d of user %d refused: this user may not connect",
                self.path,
                connection.pid,
                connection.uid,
            )
            return None
        if connection.uid not in self._times:
            self._times[connection.uid] = self._shared.bucket()
        waiting = [c for c in self.sessions.values() if c.guest is None]
        if broken(Control.CHECK_GUEST_WAITING, len(waiting) >= WAITING):
            # The one that has been idle longest makes room.
            log.warning("%s sent away: it made no request, and others wait", waiting[0])
            self.finish(waiting[0])
        return connection

    def _request(self, connection: _Connection) -> bool:
        spending = self._times[connection.uid]
        if self.rest(connection, spending):
            return True
        try:
            payload = connection.sock.recv(REQUEST_BYTES + 1)
        except BlockingIOError:
            return True
        if not payload:
            return False
        try:
            with spending.spent():
                self._attach(connection, parse_request(payload, self.policy))
            connection.deadline = None
            left = self._left[connection.uid]
            connection.time = left.pop() if left else self._shared.bucket()
        except (CdnaError, OSError) as error:
            log.warning("%s refused: %.200s", connection, error)
            connection.take_back()
            kind = "ConfigError" if isinstance(error, ConfigError) else "ResourceError"
            _send(connection, {"error": kind, "message": str(error)[:1000]})
            self.finish(connection)
        return True

    def _attach(self, connection: _Connection, request: Request) -> None:
        """Creates the guest and its context, hands over what it maps. On an error the caller undoes it."""
        vmm, most = self.vmm, self.policy.max_guests
        if most is not None and broken(Control.CHECK_GUESTS_MANY, len(self.guests) >= most):
            raise ResourceError(f"{most} guests are connected, and no more are allowed: end one of them")
        guest = connection.guest = vmm.create_guest(request.name, request.memory)
        memory_fd = vmm.memory.export(guest.first_page, guest.pages)
        # Not an eventfd: the flags of one belong to all who hold it, so a guest could make the VMM wait
        # for it. Two ends of a socket have flags of their own, and a full one refuses the datagram.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with ours, theirs:
            ours.shutdown(socket.SHUT_RD)
            context = connection.context = vmm.assign(guest, request.settings, event_fd=ours.fileno())
            ours.detach()  # the context closes it
            context.on_revoke = lambda: _shut_down(connection.sock)
            writable = request.settings.mode != Protection.PROTECTION_VALIDATED
            page_fd, rings_fd = vmm.nic.export(context.index, writable)
            fds = [memory_fd, page_fd, rings_fd, theirs.fileno()]
            _send(connection, geometry(context), fds)
        log.info("%s: context %d, %s", connection, context.index, context.mac)


def geometry(context: Context) -> dict[str, Any]:
    """What a driver has to know of its context, beside the descriptors."""
    settings, guest, nic = context.settings, context.guest, context.vmm.nic
    return {
        "version": VERSION,
        "context": context.index,
        "mac": context.mac,
        "maddr": guest.maddr,
        "size": guest.size,
        "protection": int(settings.mode),
        "strategy": int(settings.strategy),
        "tx_ring": settings.tx_ring,
        "rx_ring": settings.rx_ring,
        "max_ring": nic.max_ring,
    }


def status(context: Context) -> dict[str, Any]:
    """The answer to HYPERCALL_STATUS: state, address, counters, and the fault if there was one."""
    if context.state == ContextState.CONTEXT_FAULTED and context.fault is None:
        context.vmm.collect_faults()
    return {
        "state": int(context.state),
        "mac": context.mac,
        "stats": context.stats(),
        "fault": asdict(context.fault) if context.fault else None,
    }


def _send(connection: _Connection, answer: dict[str, Any], fds: list[int] | None = None) -> None:
    payload = json.dumps(answer).encode()
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    try:
        socket.send_fds(connection.sock, [payload], fds or [], flags)
    except BlockingIOError:
        raise Malformed("answers are left unread") from None


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
