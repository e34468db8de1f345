"""HTTP server of the page.

    GET /           the page; also /page.css, /page.js and /charts.js
    GET /events     the engine's events, as server-sent events
    POST /commands  a command such as {"paused": true}, see `commands.check`
    POST /video     a file to play; its name is in the header X-Name

By default it listens on the loopback interface, and requests for another host name or
from another origin are rejected. On any other interface a random token is required,
once in the address of the page and then in a cookie.
"""

import contextlib
import json
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dmnet_jax.live.engine import Engine

LOOPBACK = "127.0.0.1"
MAX_BODY = 1000
MAX_VIEWERS = 8
MAX_VIDEO = 8 << 30
"""Bytes of a file that a viewer may send."""

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
}
_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'"
)
_COOKIE = "dmnet_live"


class Server(ThreadingHTTPServer):
    """Serves the page of an engine. Use it as a context manager.

    Args:
        engine: the engine whose events are shown.
        port: port number. 0: any free port.
        host: address of the interface to listen on.

    Attributes:
        token: what a viewer must know; empty on the loopback interface.

    Raises:
        OSError: the port is not available, or the address is not this machine's.
        ValueError: the port number is invalid.
    """

    daemon_threads = True

    def __init__(self, engine: Engine, port: int, host: str = LOOPBACK) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"--port {port}: must be 0 to 65535; 0 is any free port")
        self.engine = engine
        self.token = "" if host in (LOOPBACK, "localhost") else secrets.token_urlsafe()
        folder = files("dmnet_jax.live")
        self.pages = {
            path: (folder.joinpath(name).read_bytes(), f"{kind}; charset=utf-8")
            for path, (name, kind) in _FILES.items()
        }
        self.viewers = threading.BoundedSemaphore(MAX_VIEWERS)
        self._uploads = tempfile.TemporaryDirectory(prefix="dmnet-live-")
        self._upload_lock = threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            self._uploads.cleanup()
            raise OSError(
                f"{host}:{port} is not available ({error.strerror}); try --port 0, or "
                "an address of this machine as --host"
            ) from error

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host = str(self.server_address[0])
        host = socket.gethostname() if host == "0.0.0.0" else host
        query = f"?token={self.token}" if self.token else ""
        return f"http://{host}:{self.server_port}/{query}"

    def receive(self, body: Any, length: int, name: str) -> None:
        """Stores a viewer's file and plays it; the file before it is deleted.

        Raises:
            ValueError: it cannot be played.
            OSError: it cannot be stored.
        """
        with self._upload_lock:
            folder = Path(tempfile.mkdtemp(dir=self._uploads.name))
            path = folder / f"video{Path(name).suffix[:8]}"
            try:
                with path.open("wb") as file:
                    _copy(body, file, length)
                self.engine.open_file(path, Path(name).name)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            for other in Path(self._uploads.name).iterdir():
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports errors, except for viewers that disconnect during a response."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        self._uploads.cleanup()


def _copy(body: Any, file: Any, length: int) -> None:
    while length:
        block = body.read(min(length, 1 << 20))
        if not block:
            raise ConnectionAbortedError("the file was not sent completely")
        file.write(block)
        length -= len(block)


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 30
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dmnet", ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not self._is_allowed(parse_qs(url.query).get("token", [""])[0]):
            return
        if self.server.token and url.path == "/" and url.query:
            # The token moves from the address, which is easily shared, to a cookie.
            cookie = f"{_COOKIE}={self.server.token}; HttpOnly; SameSite=Strict"
            self._answer(
                HTTPStatus.SEE_OTHER, headers={"Location": "/", "Set-Cookie": cookie}
            )
        elif url.query:
            self._answer(HTTPStatus.NOT_FOUND)
        elif url.path in self.server.pages:
            self._answer(HTTPStatus.OK, *self.server.pages[url.path])
        elif url.path == "/events":
            self._events()
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._is_allowed():
            return
        kind, most = {
            "/commands": ("application/json", MAX_BODY),
            "/video": ("application/octet-stream", MAX_VIDEO),
        }.get(self.path, ("", 0))
        if not kind:
            return self._answer(HTTPStatus.NOT_FOUND)
        # No form of another page can have these types.
        if self.headers.get("Content-Type") != kind:
            return self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self._answer(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > most:
            return self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            if self.path == "/video":
                name = unquote(self.headers.get("X-Name", ""))
                self.server.receive(self.rfile, int(length), name)
            else:
                command = json.loads(self.rfile.read(int(length)))
                if not isinstance(command, dict):
                    raise ValueError("a command is a JSON object")
                self.server.engine.order(command)
        except ConnectionError:
            self.close_connection = True
            return
        except (ValueError, OSError, RecursionError) as error:
            return self._answer(HTTPStatus.BAD_REQUEST, str(error).encode())
        self._answer(HTTPStatus.NO_CONTENT)

    def _is_allowed(self, token: str = "") -> bool:
        """Returns whether the request is from our own page; otherwise responds 403."""
        port, host = self.server.server_port, self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        if self.server.token:
            token = token or self._cookie()
            allowed = secrets.compare_digest(token.encode(), self.server.token.encode())
            hosts = {host}
        else:
            hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}
            allowed = host in hosts
        if not allowed or (origin and origin.removeprefix("http://") not in hosts):
            self._answer(HTTPStatus.FORBIDDEN)
            return False
        return True

    def _cookie(self) -> str:
        with contextlib.suppress(CookieError):
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
            if _COOKIE in cookies:
                return cookies[_COOKIE].value
        return ""

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
                thumbs = dict(engine.thumbs)
                new = {name: thumbs[name] for name in thumbs.keys() - sent}
                sent = set(thumbs)
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
        self,
        status: HTTPStatus,
        content: bytes = b"",
        kind: str = "text/plain; charset=utf-8",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
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
