"""Metrics over HTTP, on an address that was asked for: GET /metrics.

One thread answers, and waits for no client. Any local user may connect to a port, so everything has a bound:
connections, the size of a request, the time that a request and an answer may take, answers under way (a large
lab's text has megabytes), and the processor time that making the text takes.
"""

from __future__ import annotations

import io
import os
import re
import select
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from cdna import logs
from cdna.base.loop import Session, SessionServer
from cdna.base.sockets import listen
from cdna.control_checks import Control, broken
from cdna.errors import ConfigError, ResourceError
from cdna.lab.metrics import CONTENT_TYPE, metrics_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdna.lab.lab import Lab

log = logs.logger("cdna.lab")

HOST = "127.0.0.1"
CONNECTIONS = 128  # at a time; one more, and the oldest is ended: a scraper outlasts a burst of others
ANSWERS = 8  # of these under way; the same
REQUEST_BYTES = 8192
PATIENCE = 10.0  # seconds that a request may take
ANSWER_PATIENCE = 30.0  # seconds that an answer may take to be read
SHARE = 0.1  # of a core, for making the text: the last one serves until then
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class _Connection(Session):
    """A client: its request as far as it has come, then what is left of its answer."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock, deadline)
        self.request = bytearray()
        self.answer: list[memoryview] = []

    def __str__(self) -> str:
        return "metrics"

    def receive(self) -> bool:
        """Reads what has come. True: the request is whole, or too long. Raises OSError."""
        data = self.sock.recv(REQUEST_BYTES)
        if not data:
            raise ConnectionAbortedError
        self.request += data
        too_long = broken(Control.CHECK_METRICS_LONG, len(self.request) > REQUEST_BYTES)
        return too_long or _END_OF_HEAD.search(self.request) is not None

    def send(self) -> bool:
        """Sends what there is room for. True: that was all. Raises OSError."""
        while self.answer:
            sent = self.sock.send(self.answer[0], socket.MSG_NOSIGNAL)
            rest = self.answer[0][sent:]
            self.answer[:1] = [rest] if len(rest) else []
        return True


class MetricsServer(SessionServer[_Connection]):
    """Answers GET /metrics until `close`, on HOST:PORT or on a Unix socket (mode 0600) at a path.

    patience: seconds that a request may take. ConfigError: neither of the two addresses. ResourceError: it
    cannot listen there. Sessions: the oldest comes first.
    """

    def __init__(self, address: str, lab: Lab, *, patience: float = PATIENCE) -> None:
        path = os.path.abspath(address) if "/" in address else None
        listener = _listen_tcp(address) if path is None else listen(path, kind=socket.SOCK_STREAM)
        self.address = path or _text(listener)
        self._patience = patience
        self._text = _Text(lab)
        super().__init__("cdna-metrics", log, listener, path, "metrics: no connection")
        self.begin()

    def admit(self, sock: socket.socket, now: float) -> _Connection:
        if broken(Control.CHECK_METRICS_MANY, len(self.sessions) >= CONNECTIONS):
            self.finish(next(iter(self.sessions.values())))
        return _Connection(sock, now + self._patience)

    def take(self, now: float) -> _Connection | None:
        """Serves at once: a request that is there already is answered however many others come."""
        connection = super().take(now)
        if connection is not None:
            self._go_on(self._serve, connection, now)
        return connection

    def serve(self, session: _Connection, now: float) -> bool:
        """Answers at the cost of further connections: whoever connects is unknown here."""
        with self.arrivals.spent():
            return self._serve(session, now)

    def _serve(self, session: _Connection, now: float) -> bool:
        try:
            if not session.answer:
                if not session.receive():
                    return True
                session.answer = self._answer(bytes(session.request))
                session.deadline = now + ANSWER_PATIENCE
            session.send()
            session.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            if session.answer:
                self.hear(session, select.EPOLLOUT)
                self._bound_answers()
            return True
        except OSError:  # a client that left before its answer
            pass
        return False

    def _bound_answers(self) -> None:
        answered = [connection for connection in self.sessions.values() if connection.answer]
        if broken(Control.CHECK_METRICS_UNREAD, len(answered) > ANSWERS):
            self.finish(answered[0])

    def _answer(self, request: bytes) -> list[memoryview]:
        handler = _Handler(request, self._text)
        return [memoryview(part) for part in (handler.wfile.getvalue(), handler.body) if part]


class _Text:
    """The text of a lab's metrics, made anew at most in SHARE of the time."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._text = b""
        self._good_until = 0.0

    def __call__(self) -> bytes:
        if time.monotonic() >= self._good_until:
            begun = time.thread_time()
            self._text = metrics_text(self._lab).encode()
            self._good_until = time.monotonic() + (time.thread_time() - begun) / SHARE
        return self._text


def _listen_tcp(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise ConfigError(
            f"--metrics {address!r:.80}: give a port of {HOST} such as 9177, HOST:PORT, or a path such as "
            "/run/cdna/metrics.sock"
        )
    host = host.removeprefix("[").removesuffix("]") if colon and host else HOST
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(f"--metrics {address:.80}: {reason}; give an address of this machine") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(128)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ResourceError(
            f"--metrics {address}: {(error.strerror or str(error)).lower()}; give another address"
        ) from None
    return sock


def _text(sock: socket.socket) -> str:
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Handler(BaseHTTPRequestHandler):
    """The answer to one request, of bytes that are there: headers in `wfile`, and `body`."""

    rfile: io.BytesIO
    wfile: io.BytesIO

    def __init__(self, request: bytes, text: Callable[[], bytes]) -> None:
        self._text = text
        self.body = b""
        self.rfile, self.wfile = io.BytesIO(request), io.BytesIO()
        if len(request) > REQUEST_BYTES:
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(431)
        else:
            self.handle_one_request()

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "give /metrics")
            return
        try:
            body = self._text()
        except Exception:
            log.exception("metrics: an internal error")
            self.send_error(500)
            return
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.body = body

    def version_string(self) -> str:
        return "cdna"

    def log_message(self, format: str, *args: object) -> None:
        pass
