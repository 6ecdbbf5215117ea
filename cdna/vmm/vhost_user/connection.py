"""One frontend's connection: bytes and descriptors in, whole messages out. It never waits.

A message may come in pieces. No more is read than the current message has bytes, so the descriptors read so
far are its own. Whoever closes the connection, they are closed with it.
"""

from __future__ import annotations

import select
import socket

from cdna.base.sockets import peer
from cdna.control_checks import Control, broken
from cdna.protocol.vhost_user import (
    FLAG_REPLY,
    HEADER,
    MAX_PAYLOAD,
    MAX_REGIONS,
    VERSION,
    VERSION_MASK,
    Gone,
    Message,
    ProtocolError,
    name_of,
    pack,
)
from cdna.vmm.vhost_user.descriptors import Discard

FDS_READ = 2 * MAX_REGIONS  # room for more than any message has, so that a surplus is seen as one


class Connection:
    """A nonblocking stream socket. `timeout`: seconds that a message may take from first byte to last.

    deadline: of the first byte of the first message, None: there is none.
    """

    def __init__(
        self, sock: socket.socket, timeout: float, discard: Discard, deadline: float | None = None
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._discard = discard
        self.fd = sock.fileno()
        self.pid, self.uid = peer(sock)
        self.deadline = deadline  # of the message that has begun, or of the first one
        self._timeout = timeout
        self._head = b""
        self._payload = b""
        self._fds: list[int] = []

    @property
    def awaited(self) -> str:
        """What the frontend is in the middle of sending, in words."""
        if len(self._head) < HEADER.size:
            return f"{len(self._head)} of {HEADER.size} bytes of a header"
        request, _, size = HEADER.unpack(self._head)
        return f"{name_of(request)}: {len(self._payload)} of {size} bytes of its payload"

    @property
    def descriptors(self) -> int:
        """How many are held: of the socket, and those that came with a message that is not whole yet."""
        return 1 + len(self._fds)

    def receive(self, now: float) -> Message | None:
        """The next message, None if it is not whole yet. Raises Gone, ProtocolError, OSError."""
        if len(self._head) < HEADER.size:
            had = len(self._head)
            self._head += self._read(HEADER.size - had)
            if had == 0 and self._head:
                self.deadline = now + self._timeout
            if len(self._head) < HEADER.size:
                return None
        request, flags, size = self._header()
        if len(self._payload) < size:
            self._payload += self._read(size - len(self._payload))
            if len(self._payload) < size:
                return None
        message = Message(request, flags, self._payload, self._fds)
        self._head = self._payload = b""
        self._fds = []
        self.deadline = None
        return message

    def _header(self) -> tuple[int, int, int]:
        request, flags, size = HEADER.unpack(self._head)
        if broken(Control.CHECK_FRONTEND_VERSION, flags & VERSION_MASK != VERSION):
            raise ProtocolError(
                f"{name_of(request)}: version {flags & VERSION_MASK}, and {VERSION} is spoken here"
            )
        if broken(Control.CHECK_FRONTEND_REPLY, flags & FLAG_REPLY):
            raise ProtocolError(f"{name_of(request)}: a reply, and nothing was asked")
        if broken(Control.CHECK_FRONTEND_PAYLOAD, size > MAX_PAYLOAD):
            raise ProtocolError(f"{name_of(request)}: a payload of {size} bytes; no message has as many")
        return request, flags, size

    def _read(self, wanted: int) -> bytes:
        """Up to `wanted` bytes, b"" if none are there yet; keeps the descriptors that come with them."""
        try:
            data, fds, flags, _ = socket.recv_fds(self.sock, wanted, FDS_READ, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return b""
        self._fds += fds
        cut = broken(Control.CHECK_FRONTEND_FDS_CUT, flags & socket.MSG_CTRUNC)
        if cut or broken(Control.CHECK_FRONTEND_FDS_MANY, len(self._fds) > FDS_READ):
            raise ProtocolError(f"more than {FDS_READ} descriptors; no message has as many")
        if not data:
            if self._head:
                raise ProtocolError(f"the frontend vanished after {self.awaited}")
            raise Gone
        return data

    def send(self, request: int, payload: bytes, fds: tuple[int, ...] = ()) -> None:
        """Sends a reply. ProtocolError: earlier ones are left unread, so there is no room for it."""
        packet = pack(request, VERSION | FLAG_REPLY, payload)
        try:
            sent = socket.send_fds(self.sock, [packet], fds, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if broken(Control.CHECK_FRONTEND_UNREAD, sent < len(packet)):
            raise ProtocolError(f"{name_of(request)}: replies are left unread")

    def has_hung_up(self) -> bool:
        """Whether the frontend has closed its end; what it sent before may still be there to read."""
        poller = select.poll()
        poller.register(self.sock, select.POLLRDHUP)
        return bool(poller.poll(0))

    def close(self) -> None:
        """Closes the socket and what came for a message that never became whole."""
        self._discard.close(self._fds)
        self._discard.close_socket(self.sock)
