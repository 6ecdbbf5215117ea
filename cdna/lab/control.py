"""The control socket of a running lab: a JSON object a request, a JSON object a reply, descriptors beside it.

    client   {"command": "link", "guest": "g1", "up": false}
    lab      {"ok": true}    or    {"error": "no guest 'g1': there are g2 and g3"}

The socket is SOCK_SEQPACKET, so a message is a packet, with the mode 0600; whoever connects has to be the
lab's user, or root. One thread answers, a request at a time, and waits for no client. A client that makes no
request is disconnected after a while; beyond SESSIONS, the session that has been idle longest makes room.
Requests have SHARE of the time, as most make the NIC stand still: clients wait while they have taken more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any

from cdna import logs
from cdna.base import loop
from cdna.base.closing import Closing
from cdna.base.control_time import SharedTime
from cdna.base.sockets import listen, listener_pid, may_connect, peer
from cdna.control_checks import Control, broken
from cdna.errors import CdnaError, ConfigError, ResourceError

log = logs.logger("cdna.lab")

MESSAGE_BYTES = 1 << 20
MAX_FDS = 16
TIMEOUT = 30.0  # seconds that a client waits for its reply
SESSIONS = 64  # at a time
PATIENCE = 10.0  # seconds from a connection to its first request
SHARE = 0.5  # of the time, for all requests: they are the operator's own
BURST = 5.0  # seconds of it at once: many guests may be added one after the other

Request = dict[str, Any]
Reply = dict[str, Any]


class Session(loop.Session):
    """One client's connection, as a handler sees it.

    fds: descriptors to send with the reply, which stay the handler's, but for those that are also in
    close_behind. received: those that came with the request; they are closed behind the handler, which
    duplicates what it wants to keep.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        self.pid, self.uid = peer(sock)
        self.fds: list[int] = []
        self.close_behind: list[int] = []
        self.received: list[int] = []
        self.entered = False  # a guest of this lab
        self._callbacks: list[Callable[[], None]] = []

    def __str__(self) -> str:
        return f"control session of process {self.pid}"

    def on_close(self, callback: Callable[[], None]) -> None:
        """Has `callback` called, in the control thread, when the client has gone or the lab ends."""
        self._callbacks.append(callback)

    @property
    def holds(self) -> bool:
        """Whether something lasts as long as this session, such as a capture."""
        return bool(self._callbacks)

    def close(self) -> None:
        super().close()
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # the other sessions go on
                log.exception("a control session was not ended whole")
        self._callbacks.clear()


Handler = Callable[[Request, Session], Mapping[str, Any]]


class ControlServer(loop.SessionServer[Session]):
    """Answers requests at `path` until `close`. `handlers`: by command; more may be added at any time.

    A handler returns what the reply says beside "ok"; a `CdnaError` of it is the client's one line.
    patience: seconds from a connection to its first request. clock, cost: those of `SharedTime`. Sessions:
    the longest idle comes first.
    """

    def __init__(
        self,
        path: str,
        handlers: dict[str, Handler],
        *,
        patience: float = PATIENCE,
        clock: loop.Clock = time.monotonic,
        cost: loop.Clock = time.thread_time,
    ) -> None:
        self.path = path
        self.handlers = handlers
        self._patience = patience
        self._time = SharedTime(SHARE, BURST, clock=clock, cost=cost).bucket()
        check_free(path)
        super().__init__("cdna-control", log, listen(path), path, "no control session", clock)
        self.begin()

    def admit(self, sock: socket.socket, now: float) -> Session | None:
        session = Session(sock, now + self._patience)
        if broken(Control.CHECK_CLIENT_USER, not may_connect(session.uid)):
            log.warning("process %d of user %d refused: not this lab's user", session.pid, session.uid)
            return None
        full = broken(Control.CHECK_CLIENT_SESSIONS, len(self.sessions) >= SESSIONS)
        if full and not self._make_room():
            _refuse(session)
            return None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        return session

    def _make_room(self) -> bool:
        """Ends the session that has been idle longest. False: each holds something, such as a capture."""
        idle = next((session for session in self.sessions.values() if not session.holds), None)
        if idle is None:
            return False
        log.warning("process %d disconnected: %d sessions are open", idle.pid, SESSIONS)
        self.finish(idle)
        return True

    def serve(self, session: Session, now: float) -> bool:
        """Answers the next request, once there is time for it. False: no client of ours, or it has gone."""
        if self.rest(session, self._time):
            return True
        with self._time.spent():
            return self._answer(session)

    def _answer(self, session: Session) -> bool:
        self.sessions[session.fd] = self.sessions.pop(session.fd)
        try:
            message, session.received, flags, _ = socket.recv_fds(session.sock, MESSAGE_BYTES, MAX_FDS)
        except BlockingIOError:
            return True
        except OSError:
            return False
        session.deadline = None
        session.fds, session.close_behind = [], []
        try:
            if not message or broken(Control.CHECK_CLIENT_CUT, flags & socket.MSG_TRUNC):
                return False
            if broken(Control.CHECK_CLIENT_FDS_CUT, flags & socket.MSG_CTRUNC):
                return False
            return self._send(self._reply(message, session), session)
        finally:
            for fd in (*session.received, *session.close_behind):
                os.close(fd)

    def _send(self, reply: Reply, session: Session) -> bool:
        try:
            socket.send_fds(session.sock, [json.dumps(reply).encode()], session.fds, socket.MSG_NOSIGNAL)
        except OSError as error:  # it left, or does not read its replies
            log.warning("process %d: no reply sent: %s", session.pid, error)
            return False
        return True

    def _reply(self, message: bytes, session: Session) -> Reply:
        request = _parsed(message)
        if not request:
            return {"error": "request: give one JSON object"}
        command = request.get("command")
        handler = self.handlers.get(command) if isinstance(command, str) else None
        if handler is None:
            return {"error": f"command {command!r:.80}: this lab knows {', '.join(sorted(self.handlers))}"}
        try:
            return {"ok": True, **handler(request, session)}
        except CdnaError as error:
            session.fds = []
            return {"error": " ".join(str(error).split())}
        except OSError as error:
            session.fds = []
            return {"error": f"{command}: {error.strerror or error}"}
        except Exception as error:
            session.fds = []
            log.exception("%s: internal error", command)
            return {"error": f"{command}: internal error, see the log: {error!r}"}


def _refuse(session: Session) -> None:
    """Tells a client that there is no room for it."""
    reply = {"error": f"{SESSIONS} sessions are open, each with a capture; end one of them"}
    with contextlib.suppress(OSError):
        session.sock.send(json.dumps(reply).encode(), socket.MSG_NOSIGNAL)
        session.sock.recv(MESSAGE_BYTES)  # closed with something unread, the reply would be lost


def _parsed(message: bytes) -> dict[str, Any]:
    """The JSON object of a message; an empty one where it is none."""
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class ControlClient(Closing):
    """A connection to the lab at `path`. ResourceError: none runs there, or it is not this user's."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path or default_path()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(TIMEOUT)
        try:
            self.sock.connect(self.path)
            _, uid = peer(self.sock)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            self.sock.close()
            raise ResourceError(
                f"no lab is running at {self.path}: start one with cdna up or serve, or give its --socket"
            ) from None
        except (OSError, ValueError) as error:
            self.sock.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise ResourceError(f"cannot connect to {self.path}: {reason.lower()}") from None
        if broken(Control.CHECK_LAB_USER, not may_connect(uid)):  # who listens there, as it was then
            self.sock.close()
            raise ResourceError(f"the lab at {self.path} is of user {uid}: give the --socket of yours")

    def call(self, command: str, *, send_fds: tuple[int, ...] = (), **fields: Any) -> tuple[Reply, list[int]]:
        """The reply to a command and the descriptors beside it. CdnaError: the lab's line."""
        request = json.dumps({"command": command, **fields}).encode()
        try:
            with contextlib.suppress(BrokenPipeError):  # refused: the reason is there to read
                socket.send_fds(self.sock, [request], send_fds)
            message, fds, _, _ = socket.recv_fds(self.sock, MESSAGE_BYTES, MAX_FDS)
        except TimeoutError:
            raise ResourceError(f"the lab at {self.path} gives no answer: end it with kill") from None
        except OSError as error:
            raise ResourceError(f"{self.path}: {error.strerror or error}") from None
        if not message:
            raise ResourceError(f"the lab at {self.path} has ended")
        reply = _parsed(message)
        if "error" not in reply and "ok" not in reply:
            for fd in fds:
                os.close(fd)
            raise ResourceError(f"{self.path}: what answers there is no lab; give the --socket of one")
        if "error" in reply:
            raise CdnaError(str(reply["error"]))
        return reply, fds

    def close(self) -> None:
        self.sock.close()


def check_free(path: str) -> None:
    """Raises ResourceError when a lab listens at `path`."""
    pid = listener_pid(path)
    if pid:
        raise ResourceError(
            f"a lab is already running at {path} (pid {pid}); end it, or give another --socket"
        )


def default_path() -> str:
    """Where this user's lab listens unless --socket says otherwise.

    To be asked for before a user namespace is entered, which makes this user root.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "cdna", "lab.sock")
    uid = os.geteuid()
    return "/run/cdna/lab.sock" if uid == 0 else f"/tmp/cdna-{uid}/lab.sock"


def make_directory(path: str) -> None:
    """Makes the directory of a socket, for this user alone. ConfigError: others can write to it."""
    directory = os.path.dirname(path)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ConfigError(f"{directory} is not this user's alone: give another --socket") from None
    except OSError as error:
        raise ResourceError(
            f"cannot make {directory}: {(error.strerror or '').lower()}; give a --socket"
        ) from None
