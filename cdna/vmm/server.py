"""Guests in other processes: a Unix socket on which each connection is one guest with one context.

What a connection goes through:

    connect      the peer's user is checked (SO_PEERCRED)
    request      one JSON message: name, memory, settings; checked by `Policy`
    attach       guest created, its pages in a memory file of their own, a context assigned and exported
    reply        geometry as JSON, with the descriptors of memory, page, rings and virtual interrupts
    hypercalls   binary messages (`cdna.vmm.hypercall`), each answered at once
    end          whoever closes, whatever was malformed: the context revoked, pins dropped, pages freed

One thread serves all connections and waits for none of them. A guest that floods its socket gets one
message carried out in each turn, as everybody does. Attaching makes the NIC stand still: who does that again
and again, under whatever name, is a user, and a user's requests wait while they have taken too much time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cdna import logs
from cdna.abi import ContextState, Protection
from cdna.base.closing import Closing
from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.sockets import Door, listen, may_connect, peer, remove, timeout_until
from cdna.vmm.control_time import Clock, ControlTime
from cdna.vmm.hypercall import HypercallBuffer, Malformed, Served
from cdna.vmm.policy import REQUEST_BYTES, VERSION, Policy, Request, parse_request

if TYPE_CHECKING:
    from cdna.vmm.hypervisor import Context, Guest, Hypervisor

log = logs.logger("cdna.vmm")

WAITING = 32  # connections beside those of the guests: they have not made their request yet
PATIENCE = 10.0  # seconds from a connection to its request


class _Connection:
    """A guest's socket, and what was given to it."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until  # its request has to have come
        self.fd = sock.fileno()
        self.pid, self.uid = peer(sock)
        self.guest: Guest | None = None
        self.context: Context | None = None
        self.rests_until: float | None = None  # not read before; None: it has its turns

    def __str__(self) -> str:
        name = f"guest {self.guest.name!r}" if self.guest else "a guest to be"
        return f"{name} (process {self.pid}, user {self.uid})"


class Server(Closing):
    """Serves guests of other processes on a socket at `path`, until `close`. `Hypervisor.serve` makes it.

    clock, cost: those of `ControlTime`.
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
        self._clock = clock
        self._cost = cost
        self._connections: dict[int, _Connection] = {}
        self._times: dict[int, ControlTime] = {}  # by user: of those that may connect
        self._buffer = HypercallBuffer(vmm.tables)
        self._listener = listen(self.path, bool(policy.uids))
        self._inode = os.stat(self.path).st_ino
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._door = Door(self._listener, self._epoll)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="cdna-serve", daemon=True)
        self._thread.start()

    @property
    def guests(self) -> list[Guest]:
        """The guests that are connected."""
        connections = list(self._connections.values())
        return [c.guest for c in connections if c.guest is not None]

    def close(self) -> None:
        """Ends every connection and destroys its guest, removes the socket."""
        if not self._thread.is_alive():
            return
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        for connection in list(self._connections.values()):
            self._end(connection)
        remove(self.path, self._inode)
        self._listener.close()
        self._epoll.close()
        os.close(self._wake_fd)

    # --- the loop -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            ready = self._epoll.poll(self._timeout(self._clock()))
            self._go_on(self._clock())
            for fd, _ in ready:
                if fd == self._wake_fd:
                    return
                if fd == self._door.fd:
                    self._accept()
                elif fd in self._connections:
                    self._turn(self._connections[fd])

    def _timeout(self, now: float) -> float | None:
        """Seconds until something is due; None: nothing is."""
        due = [c.until if c.rests_until is None else c.rests_until for c in self._to_watch()]
        if self._door.due is not None:
            due.append(self._door.due)
        return timeout_until(min(due, default=None), now)

    def _to_watch(self) -> list[_Connection]:
        """The connections for which something may be due: a rest ends, or patience."""
        return [c for c in self._connections.values() if c.guest is None or c.rests_until is not None]

    def _go_on(self, now: float) -> None:
        """Does what is due: listens again, reads again, ends connections that make no request."""
        self._door.go_on(now)
        for connection in self._to_watch():
            if connection.rests_until is None:
                if now >= connection.until:
                    log.warning("%s sent away: it made no request", connection)
                    self._end(connection)
            elif now >= connection.rests_until:
                connection.rests_until = None
                connection.until = max(connection.until, now + PATIENCE)
                self._epoll.register(connection.fd, select.EPOLLIN)

    def _turn(self, connection: _Connection) -> None:
        """The next message of a connection; whatever goes wrong ends this one and no other."""
        try:
            if not self._message(connection):
                log.info("%s has gone", connection)
                self._end(connection)
        except Malformed as error:
            log.warning("%s sent away: %s", connection, error)
            self._end(connection)
        except OSError as error:
            log.warning("%s lost: %s", connection, error)
            self._end(connection)
        except Exception:
            log.exception("%s sent away by an internal error", connection)
            self._end(connection)

    def _message(self, connection: _Connection) -> bool:
        """Handles one message, if there is one. False: the guest has gone."""
        context, guest = connection.context, connection.guest
        if context is None or guest is None:
            return self._request(connection)
        if context.revoked:
            return False
        served = self._buffer.serve(connection.fd, guest.domain, context.index)
        if served == Served.SERVED_STATUS:
            _send(connection, status(context))
        return served != Served.SERVED_END

    # --- connecting ---------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock = self._door.take(self._clock())
        except OSError as error:
            log.warning("no more guests on %s for now: %s", self.path, error)
            return
        if sock is None:
            return
        try:
            self._admit(sock)
        except OSError as error:
            log.warning("a guest to be lost: %s", error)
            sock.close()

    def _admit(self, sock: socket.socket) -> None:
        """Checks who has connected, and listens to them from now on."""
        connection = _Connection(sock, self._clock() + PATIENCE)
        if not may_connect(connection.uid, self.policy.uids):
            log.warning("%s refused: this user may not connect to %s", connection, self.path)
            sock.close()
            return
        if connection.uid not in self._times:
            times = ControlTime(self.policy.control_share, clock=self._clock, cost=self._cost)
            self._times[connection.uid] = times
        waiting = [c for c in self._connections.values() if c.guest is None]
        if len(waiting) >= WAITING:  # the one that has been idle longest makes room
            log.warning("%s sent away: it made no request, and others wait", waiting[0])
            self._end(waiting[0])
        self._connections[connection.fd] = connection

    def _request(self, connection: _Connection) -> bool:
        spending = self._times[connection.uid]
        due = spending.due()
        if due is not None:
            connection.rests_until = due
            self._epoll.unregister(connection.fd)
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
        except (CdnaError, OSError) as error:
            log.warning("%s refused: %.200s", connection, error)
            self._take_back(connection)
            kind = "ConfigError" if isinstance(error, ConfigError) else "ResourceError"
            _send(connection, {"error": kind, "message": str(error)[:1000]})
            self._end(connection)
        return True

    def _attach(self, connection: _Connection, request: Request) -> None:
        """Creates the guest and its context, hands over what it maps. On an error the caller undoes it."""
        vmm, most = self.vmm, self.policy.max_guests
        if most is not None and len(self.guests) >= most:
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

    def _end(self, connection: _Connection) -> None:
        """Ends a connection; what it had goes back."""
        if self._connections.pop(connection.fd, None) is None:
            return
        if connection.rests_until is None:
            self._epoll.unregister(connection.fd)
        try:
            with self._times[connection.uid].spent():
                self._take_back(connection)
        except Exception:  # the others are served whatever happens here
            log.exception("%s was not taken back whole", connection)
        connection.sock.close()

    def _take_back(self, connection: _Connection) -> None:
        """Destroys the guest of a connection: what its process still maps is nobody else's memory."""
        if connection.context is not None:
            connection.context.on_revoke = None
        if connection.guest is not None:
            self.vmm.destroy_guest(connection.guest)
        connection.context = connection.guest = None


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
