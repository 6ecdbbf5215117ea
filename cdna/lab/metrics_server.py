"""Metrics over HTTP, on an address that was asked for: GET /metrics."""

from __future__ import annotations

import logging
import os
import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cdna.errors import ConfigError, ResourceError
from cdna.lab.metrics import CONTENT_TYPE, metrics_text
from cdna.sockets import listen, remove

if TYPE_CHECKING:
    from types import TracebackType

    from cdna.lab.lab import Lab

log = logging.getLogger("cdna.lab")

HOST = "127.0.0.1"
PATIENCE = 10  # seconds that a client may take for its request


class MetricsServer:
    """Answers GET /metrics until `close`, on HOST:PORT or on a Unix socket (mode 0600) at a path.

    ConfigError: neither of the two. ResourceError: it cannot listen there.
    """

    def __init__(self, address: str, lab: Lab) -> None:
        self._path: str | None = None
        if "/" in address:
            self._path = os.path.abspath(address)
            sock = listen(self._path, kind=socket.SOCK_STREAM)
            self._inode = os.stat(self._path).st_ino
        else:
            sock = _listen_tcp(address)
        sock.setblocking(True)
        self.address = self._path or _text(sock)
        self._server = _Server(sock, partial(_Handler, lab))
        self._thread = threading.Thread(target=self._server.serve_forever, name="cdna-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Closing twice is harmless."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            if self._path is not None:
                remove(self._path, self._inode)
            self._server.server_close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
        sock.listen(16)
    except OSError as error:
        sock.close()
        raise ResourceError(
            f"--metrics {address}: {(error.strerror or str(error)).lower()}; give another address"
        ) from None
    return sock


def _text(sock: socket.socket) -> str:
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingHTTPServer):
    """An HTTP server on a socket that listens already."""

    block_on_close = False  # clients that do not go are left to their time limit

    def __init__(self, sock: socket.socket, handler: Any) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that left before its answer


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE

    def __init__(self, lab: Lab, *args: Any) -> None:
        self._lab = lab
        super().__init__(*args)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "give /metrics")
            return
        try:
            body = metrics_text(self._lab).encode()
        except Exception:
            log.exception("metrics: a mistake of the lab's")
            self.send_error(500)
            return
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def version_string(self) -> str:
        return "cdna"

    def log_message(self, format: str, *args: object) -> None:
        pass
