"""HTTP server of the page: loopback interface only, three fixed paths.

    GET /         the page
    GET /events   the engine's events, as server-sent events
    POST /orders  commands such as {"paused": true}, see `Engine.order`

Requests for another host name, or with another origin, are rejected.
"""

import json
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from dmnet_jax.live.engine import Engine

LOOPBACK = "127.0.0.1"
MAX_BODY = 1000
MAX_VIEWERS = 8

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"
)


class Server(ThreadingHTTPServer):
    """Serves the page of an engine.

    Args:
        engine: the engine whose events are shown.
        port: port number. 0: any free port.

    Raises:
        OSError: the port is not available.
        ValueError: the port number is invalid.
    """

    daemon_threads = True

    def __init__(self, engine: Engine, port: int):
        if not 0 <= port <= 65535:
            raise ValueError(f"--port {port}: must be 0 to 65535; 0 is any free port")
        self.engine = engine
        self.page = files("dmnet_jax.live").joinpath("page.html").read_bytes()
        self.viewers = threading.BoundedSemaphore(MAX_VIEWERS)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise OSError(
                f"port {port} is not available ({error.strerror}); try --port 0"
            ) from error

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports errors, except for viewers that disconnect during a response."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 30
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dmnet", ""

    def do_GET(self) -> None:
        if not self._from_here():
            return
        if self.path == "/":
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif self.path == "/events":
            self._events()
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._from_here():
            return
        if self.path != "/orders":
            return self._answer(HTTPStatus.NOT_FOUND)
        if self.headers.get("Content-Type") != "application/json":
            return self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self._answer(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > MAX_BODY:
            return self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            order = json.loads(self.rfile.read(int(length)))
            if not isinstance(order, dict):
                raise ValueError
            self.server.engine.order(order)
        except (ValueError, RecursionError):
            return self._answer(HTTPStatus.BAD_REQUEST)
        self._answer(HTTPStatus.NO_CONTENT)

    def _from_here(self) -> bool:
        """Returns whether host and origin are this server's; otherwise responds 403."""
        port = self.server.server_port
        hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}
        origin = self.headers.get("Origin")
        here = self.headers.get("Host") in hosts
        if not here or (origin and origin.removeprefix("http://") not in hosts):
            self._answer(HTTPStatus.FORBIDDEN)
            return False
        return True

    def _events(self) -> None:
        if not self.server.viewers.acquire(blocking=False):
            return self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            self.send_response(HTTPStatus.OK)
            self._headers("text/event-stream")
            self.close_connection = True
            engine = self.server.engine
            self._send({"about": engine.about, "history": list(engine.history)})
            number, sent = 0, set()
            while True:
                newest, event = engine.wait(number, timeout=1.0)
                if newest == number or not event:
                    self._write(b": waiting\n\n")  # fails once the viewer disconnects
                    continue
                number = newest
                there = dict(engine.thumbs)
                new = {name: there[name] for name in there.keys() - sent}
                sent = set(there)
                self._send({**event, "thumbs": new})
        except OSError:
            pass  # the viewer has disconnected
        finally:
            self.server.viewers.release()

    def _send(self, tree: dict[str, Any]) -> None:
        self._write(f"data: {json.dumps(tree, allow_nan=False)}\n\n".encode())

    def _write(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()

    def _answer(
        self, status: HTTPStatus, content: bytes = b"", kind: str = "text/plain"
    ) -> None:
        self.send_response(status)
        if status >= 400:
            self.close_connection = True
            self.send_header("Connection", "close")
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self._headers(kind)
        self.wfile.write(content)

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Disables request logging; all requests are from our own page."""
