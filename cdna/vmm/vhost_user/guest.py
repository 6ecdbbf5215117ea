"""One guest behind a vhost-user socket: its context stays while frontends come and go.

    link down ---------- set_link(True) ---------> waiting       (it listens, or connects again and again)
    waiting ------------ a frontend comes -------> connected     (one at a time; another is sent away)
    connected ---------- it goes, or misbehaves -> waiting       (rings stopped, memory unmapped)
    connected ---------- set_link(False) --------> connected, where the frontend hears of it, or link down

A frontend hears of the link by CONFIG and BACKEND_REQ. Others are disconnected: QEMU then shows its guest a
link without a carrier, and comes back when it can.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cdna import logs
from cdna.abi import ContextState
from cdna.base.control_time import Rest
from cdna.base.listener import ACCEPT_AGAIN
from cdna.base.sockets import may_connect
from cdna.base.units import parse_mac
from cdna.control_checks import Control, broken
from cdna.protocol.features import CTRL_VQ, PROTOCOL_FEATURES
from cdna.protocol.vhost_user import Gone, Message, ProtocolError
from cdna.vmm.vhost_user.backend import Backend
from cdna.vmm.vhost_user.connection import Connection
from cdna.vmm.vhost_user.control import ControlRing
from cdna.vmm.vhost_user.description import describe
from cdna.vmm.vhost_user.descriptors import Discard
from cdna.vmm.vhost_user.endpoint import Connecting, Listening
from cdna.vmm.vhost_user.inflight import Areas
from cdna.vmm.vhost_user.net_config import net_config

if TYPE_CHECKING:
    from cdna.nic.virtio.device import VirtioDevice
    from cdna.vmm.domain import Context
    from cdna.vmm.vhost_user.lent import Lent
    from cdna.vmm.vhost_user.server import VhostUserServer

log = logs.logger("cdna.vhost_user")

FIRST_MESSAGE = 30.0  # seconds from a connection to its first message: there is one place, and others wait
TELL_AGAIN = 60.0  # seconds without a rest, until the next one is told of


class VhostUserGuest:
    """A context for whoever attaches at `path`. `VhostUserServer.add` makes it."""

    def __init__(
        self,
        server: VhostUserServer,
        context: Context,
        device: VirtioDevice,
        lent: Lent,
        endpoint: Listening | Connecting,
        *,
        pairs: int,
        mtu: int,
        features: int,
        protocol: int,
        uids: tuple[int, ...],
        stall: float,
    ) -> None:
        self.server = server
        self.name = context.guest.name
        self.path = endpoint.path
        self.context = context
        self.device = device
        self.lent = lent
        self.pairs = pairs
        self.mtu = mtu
        self.features = features  # offered
        self.protocol_features = protocol if features & PROTOCOL_FEATURES else 0
        self.control = ControlRing(self, self._commands) if features & CTRL_VQ else None
        self.link_up = True
        self.last_error: str | None = None
        self.discard = Discard()
        self._refusals = Discard()  # sockets of users that may not attach
        self.areas = Areas()
        self._endpoint = endpoint
        self._uids = uids
        self._stall = stall
        self._backend: Backend | None = None
        self._time = server.time.bucket()
        self._rest = Rest()
        self._tell_of_rests_at = 0.0

    # --- what others ask ----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._backend is not None

    def describe(self) -> dict[str, Any]:
        """State, frontend, features by name, queues, and the last thing that went wrong."""
        with self.server.lock:
            closing = self.discard.waiting + self._refusals.waiting
            return describe(self, self._backend, self._endpoint.mode, closing)

    def config_space(self) -> bytes:
        mac = parse_mac(self.context.mac)
        announce = self.control is not None and self.control.net.announcing
        return net_config(mac, self.link_up, announce, self.pairs, self.mtu)

    @contextlib.contextmanager
    def quiesced(self) -> Iterator[None]:
        """The engine stands still, and no context comes or goes."""
        vmm = self.context.vmm
        with vmm.contexts_locked(), vmm.nic.quiesced(self.context.index):
            yield

    def set_link(self, up: bool) -> None:
        """Plugs the cable in or out. ResourceError: up again, and another listens at the path meanwhile."""
        with self.server.lock:
            if up == self.link_up:
                return
            if up:
                self._open()
            self.link_up = up
            self.device.set_link(up)
            if up:
                self._announce()
            if self._backend is not None and self._backend.config_changed():
                log.info("guest %r: link %s", self.name, "up" if up else "down")
            elif not up:
                self._end(logging.INFO, "the link is down")
                self._endpoint.close()
        self.server.wake()

    def set_memory(self, most: int | None) -> None:
        """Sets how many bytes the guest may lend; None: it shares. ConfigError: it maps more by now."""
        with self.server.lock:
            self.lent.limit(most or 0, self.device.memory.held)

    def _announce(self) -> None:
        """Tells where the guest is, by RARP, and has it say so itself at the next look at its link."""
        if self._backend is None or not self._backend.rings.any_running:
            return
        self.device.announce(parse_mac(self.context.mac))
        if self.control is not None:
            self.control.ask_to_announce()

    def reset(self) -> None:
        """Ends a fault. The frontend is disconnected: what it believes of the rings is no longer so."""
        with self.server.lock:
            self.context.vmm.collect_faults()
            if self._backend is not None:
                self._end(logging.INFO, "reset")
            else:
                self.device.reset()
                self.device.set_link(self.link_up)
            self._forget_fault()
        self.server.wake()

    # --- what the server's thread asks ----------------------------------------------------------------------

    def start(self) -> None:
        """Waits for frontends from now on. ResourceError: it cannot."""
        self._open()

    def close(self) -> None:
        """Ends the connection and waits for no other."""
        self._end(logging.INFO, "removed")
        self._endpoint.close()

    def due(self) -> float | None:
        """When `tick` has something to do, as the server's clock counts; None: never."""
        if self._rest.until is not None:
            return self._rest.until
        times = [self._endpoint.due]
        if self._backend is not None:
            times.append(self._backend.connection.deadline)
            if self.control is not None:
                times.append(self.control.due)
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> None:
        """Does what is due."""
        if self._rest.until is not None:
            rested = self._rest.end(now)
            if rested is not None:
                self._hear_again(rested)
            return  # messages are read before commands, of which there may always be some
        self._endpoint.tick(now)
        connection = self._backend.connection if self._backend is not None else None
        if connection is not None and connection.deadline is not None and now >= connection.deadline:
            self._end(logging.WARNING, f"the frontend stalls after {connection.awaited}")
        if self.control is not None and self.control.due is not None and now >= self.control.due:
            self._commands(now)

    def _open(self) -> None:
        self._endpoint.open(self._arrival)
        if self._backend is not None:
            self._endpoint.attached()
        if self._rest.until is not None:
            self._endpoint.wait(self._rest.until)

    # --- how much of the server's time it takes -------------------------------------------------------------

    @contextlib.contextmanager
    def _spending(self, now: float) -> Iterator[None]:
        """What happens within is at the guest's cost, whichever frontend asked for it."""
        with self._time.spent():
            yield
        self._rest_if_overdrawn(now)

    def _rest_if_overdrawn(self, now: float) -> None:
        """Reads no more of the guest's frontend while it has overdrawn its time."""
        until = self._rest.begin(self._time, now)
        if until is None:
            return
        if now >= self._tell_of_rests_at:
            log.warning("guest %r: so many requests that they have to wait", self.name)
        self._tell_of_rests_at = now + TELL_AGAIN
        self._endpoint.wait(until)
        if self._backend is not None:
            self.server.unwatch(self._backend.connection.fd)

    def _hear_again(self, rested: float) -> None:
        """Reads what came during a rest of so many seconds."""
        if self._backend is not None:
            connection = self._backend.connection
            self.server.watch(connection.fd, self._turn)
            if connection.deadline is not None:
                connection.deadline += rested

    # --- frontends come -------------------------------------------------------------------------------------

    def _arrival(self, now: float) -> None:
        """A frontend may have come to the endpoint."""
        if self._backend is not None and self._backend.connection.has_hung_up():
            self._turn(now)  # what the one before sent before it went; who has come goes on waiting
            return
        if broken(Control.CHECK_REFUSED_CLOSING, self._refusals.is_full):
            log.warning(
                "guest %r: no frontend accepted for now: those refused before do not close", self.name
            )
            self._endpoint.wait(now + ACCEPT_AGAIN)
            return
        begun = self.server.time.cost()
        admitted = self._take(now)
        spent = self.server.time.cost() - begun
        if admitted:
            self._time.charge(spent)
            self._rest_if_overdrawn(now)
            return
        self.server.refused.charge(spent)  # any user may come: it is not this guest's to pay for
        due = self.server.refused.due()
        if due is not None:
            self._endpoint.wait(due)

    def _take(self, now: float) -> bool:
        """Takes the frontend that has come, if it is one for this guest. False: it is not."""
        try:
            sock = self._endpoint.take(now)
        except OSError as error:  # who waits goes on waiting
            log.warning("guest %r: no frontend accepted for now: %s", self.name, error)
            return False
        if sock is None:
            return False
        try:
            return self._admit(sock, now)
        except OSError as error:
            log.warning("guest %r: a frontend lost: %s", self.name, error)
            self.discard.close_socket(sock)
            return False

    def _admit(self, sock: socket.socket, now: float) -> bool:
        # Where this side connects, the frontend may accept long after the kernel did.
        deadline = now + FIRST_MESSAGE if isinstance(self._endpoint, Listening) else None
        connection = Connection(sock, self._stall, self.discard, deadline)
        who = f"process {connection.pid}, user {connection.uid}"
        if broken(Control.CHECK_FRONTEND_USER, not may_connect(connection.uid, self._uids)):
            log.warning("guest %r: %s refused: this user may not attach here", self.name, who)
            self._refusals.close_socket(sock)  # what is left in it is not this guest's
            return False
        if broken(Control.CHECK_FRONTEND_CLOSING, self.discard.is_full):
            log.warning(
                "guest %r: %s refused: descriptors that frontends sent before do not close", self.name, who
            )
            connection.close()
            return False
        if self._backend is not None:
            log.warning(
                "guest %r: %s refused: process %d is attached", self.name, who, self._backend.connection.pid
            )
            connection.close()
            return False
        self._endpoint.attached()
        self._backend = Backend(self, connection)
        self.server.watch(connection.fd, self._turn)
        log.info("guest %r: frontend attached (%s)", self.name, who)
        return True

    # --- a frontend's messages ------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        """The next message. Whatever goes wrong ends this connection and nothing else."""
        if self._backend is not None:
            with self._spending(now):
                self._next_message(self._backend, now)

    def _next_message(self, backend: Backend, now: float) -> None:
        try:
            message = backend.connection.receive(now)
            if message is not None:
                self._carry_out(backend, message)
        except Gone:
            self._end(logging.INFO, "the frontend has gone")
        except (ProtocolError, OSError) as error:
            self._end(logging.WARNING, str(error))
        except Exception:
            log.exception("guest %r: internal error", self.name)
            self._end(logging.WARNING, "internal error")

    def _commands(self, now: float) -> None:
        """The control queue was kicked, or is to be looked at."""
        if self._backend is None or self.control is None:
            return
        if self._rest.until is not None:
            self.control.look()  # when the rest is over
            return
        with self._spending(now):
            try:
                self.control.turn(now)
            except Exception:
                log.exception("guest %r: internal error", self.name)
                self._end(logging.WARNING, "internal error")

    def config_changed(self) -> bool:
        """Tells the frontend. False: it does not listen."""
        return self._backend is not None and self._backend.config_changed()

    def _carry_out(self, backend: Backend, message: Message) -> None:
        try:
            if message.fds and broken(Control.CHECK_FRONTEND_FDS_CLOSING, self.discard.is_full):
                raise ProtocolError("descriptors that came before do not close")
            self._collect_fault()
            backend.handle(message)
            self._forget_fault()
        finally:
            self.discard.close(message.fds)

    def _end(self, level: int, reason: str) -> None:
        """Ends the connection; nothing of the frontend is kept."""
        backend, self._backend = self._backend, None
        if backend is None:
            return
        if level >= logging.WARNING:
            self.last_error = reason
        log.log(level, "guest %r: connection ended: %s", self.name, reason)
        self.server.unwatch(backend.connection.fd)
        try:
            if not self.context.revoked:
                self._collect_fault()
                backend.close()
                self.device.set_link(self.link_up)
                self._forget_fault()
        except Exception:
            log.exception("guest %r: what the frontend had was not taken back whole", self.name)
        backend.connection.close()
        if self.link_up:
            self._endpoint.detached(self.server.clock())

    def _collect_fault(self) -> None:
        """Has a fault reported before a message ends it."""
        if self.context.fault is None and self.context.state == ContextState.CONTEXT_FAULTED:
            self.context.vmm.collect_faults()
        if self.context.fault is not None:
            self.last_error = str(self.context.fault)

    def _forget_fault(self) -> None:
        """A context that runs again may fault again, and that is reported again."""
        if self.context.fault is not None and self.context.state == ContextState.CONTEXT_RUNNING:
            self.context.fault = None
