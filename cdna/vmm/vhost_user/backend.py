"""One frontend at work: each message is checked against its rule, carried out, and answered.

A message that breaks the protocol, or asks for what cannot be, ends the connection: frontends do not expect a
device to go on without what they asked for. Where a refusal is foreseen (an MTU), it is a reply.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cdna import logs
from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.protocol.vhost_user import Message, ProtocolError, ProtocolFeature, name_of
from cdna.vmm.vhost_user.handlers import DONE, FAILED, RULES, Declined, Handlers, Reply, Rule

if TYPE_CHECKING:
    from cdna.vmm.vhost_user.connection import Connection
    from cdna.vmm.vhost_user.guest import VhostUserGuest

log = logs.logger("cdna.vhost_user")


class Backend(Handlers):
    """Serves the frontend of `connection` out of a guest's device, until `close`."""

    def __init__(self, guest: VhostUserGuest, connection: Connection) -> None:
        super().__init__(guest)
        self.connection = connection

    def handle(self, message: Message) -> None:
        """Carries a message out and answers it. ProtocolError: the connection has to end."""
        rule = self._rule(message)
        try:
            reply = rule.handle(self, message)
        except Declined as error:
            if not self._acknowledge(message, FAILED):
                raise ProtocolError(f"{name_of(message.request)}: {error}") from None
            log.warning("guest %r: %s declined: %s", self.guest.name, name_of(message.request), error)
        except (ConfigError, OSError) as error:
            with contextlib.suppress(OSError, ProtocolError):  # the text below is the reason
                self._acknowledge(message, FAILED)
            raise ProtocolError(f"{name_of(message.request)}: {error}") from None
        else:
            if reply is not None:
                self._send(message, reply)
            else:
                self._acknowledge(message, DONE)

    def _rule(self, message: Message) -> Rule:
        """The rule that a message keeps. ProtocolError: it does not."""
        name = name_of(message.request)
        rule = RULES.get(message.request)
        if rule is None:
            raise ProtocolError(f"{name}: not offered")
        if rule.needs is not None:
            offered = self.guest.protocol_features >> rule.needs & 1
            if broken(Control.CHECK_MESSAGE_OFFERED, not offered):
                raise ProtocolError(f"{name}: protocol feature {rule.needs.name} is not offered")
        if broken(Control.CHECK_MESSAGE_SIZE, len(message.payload) not in rule.sizes):
            raise ProtocolError(f"{name}: a payload of {len(message.payload)} bytes, which it never has")
        least, most = rule.fds
        if broken(Control.CHECK_MESSAGE_FDS, not least <= len(message.fds) <= most):
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ProtocolError(f"{name}: {len(message.fds)} descriptors, and {wanted} belong to it")
        return rule

    def _send(self, message: Message, reply: Reply) -> None:
        try:
            self.connection.send(message.request, reply.payload, reply.fds)
        finally:
            for fd in reply.fds:
                os.close(fd)

    def _acknowledge(self, message: Message, payload: bytes) -> bool:
        """REPLY_ACK: an answer to a message that has none of its own, where one is wanted."""
        if not message.wants_reply or not self.has(ProtocolFeature.REPLY_ACK):
            return False
        self.connection.send(message.request, payload)
        return True

    def close(self) -> None:
        """Stops everything, unmaps the guest's memory, closes its descriptors."""
        self.close_channel()
        self.close_log()
        with self.guest.quiesced():
            self.rings.stop_all()
            self.rings.reset()
            self.device.set_log(-1, 0, 0)
            self.device.set_inflight(-1, 0, 0, 0, 0)
            self.device.set_memory([])
