"""The page's server: what it serves, and to whom; no network runs."""

import http.client
import json
import re
import socket
import threading
import time
from contextlib import contextmanager
from typing import Any

import pytest

from dmnet_jax.live.server import MAX_VIDEO, MAX_VIEWERS, Server
from dmnet_jax.video.sources import SourceError


class Engine:
    """Publishes one event."""

    about = {"source": "synthetic", "checkpoint": "", "classes": []}
    history = [[0, -0.1, None, True, 5.0]]
    thumbs = {"0": "data:,"}

    def __init__(self):
        self.orders, self.played = [], []

    def wait(self, after, timeout):
        if after:
            threading.Event().wait(0.02)
        return 1, {"index": 0, "status": "ok"}

    def order(self, order):
        if order == {"bad": 1}:
            raise ValueError("unknown command")
        self.orders.append(order)

    def open_file(self, path, name):
        content = path.read_bytes()
        if content == b"bad":
            raise SourceError(f"{name}: cannot be opened")
        self.played.append((path, name, content))


@contextmanager
def served(*host):
    with Server(Engine(), 0, *host) as server:  # pyright: ignore[reportArgumentType]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server():
    with served() as server:
        yield server


def ask(server, method, path, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    goes_on = path == "/events" and response.status == 200
    content = b"" if goes_on else response.read()
    if not goes_on:
        connection.close()
    return connection, response, content


def post(server, body, content_type="application/json", **headers):
    return ask(server, "POST", "/commands", body, Content_Type=content_type, **headers)[
        1
    ]


def test_listens_only_on_loopback(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address.startswith("http://127.0.0.1:")


def test_page_loads_no_external_resources(server):
    _, response, page = ask(server, "GET", "/")
    assert response.status == 200 and b"<canvas" in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in response.headers
    links = re.findall(rb'(?:src|href)="(/[^"]+)"', page)
    assert len(links) == 3
    for link in links:
        _, response, content = ask(server, "GET", link.decode())
        assert response.status == 200 and content
        assert "nosniff" in response.headers["X-Content-Type-Options"]
        page += content
    assert b"http://" not in page and b"https://" not in page
    assert b"style=" not in page.partition(b"</html>")[0], "the policy forbids it"


def test_events_begin_with_the_current_frame_and_its_history(server):
    connection, response, _ = ask(server, "GET", "/events")
    assert response.headers["Content-Type"] == "text/event-stream"
    messages = []
    while len(messages) < 2:
        line = response.readline()
        if line.startswith(b"data: "):
            messages.append(json.loads(line[6:]))
    assert messages[0] == {"about": Engine.about, "history": Engine.history}
    assert messages[1]["thumbs"] == Engine.thumbs and messages[1]["index"] == 0
    response.close()
    connection.close()


def test_commands_reach_the_engine(server):
    assert post(server, '{"paused": true}').status == 204
    assert server.engine.orders == [{"paused": True}]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"bad": 1}', 400),
        ("[]", 400),
        ("{", 400),
        (b"\xff", 400),
        ("[" * 900, 400),
        ("", 400),
        (" " * 1001, 413),
    ],
)
def test_invalid_commands(server, body, status):
    assert post(server, body).status == status
    assert server.engine.orders == []


def test_commands_of_other_pages_are_rejected(server):
    assert post(server, "{}", "text/plain").status == 415
    assert post(server, "{}", Origin="https://example.com").status == 403
    assert post(server, "{}", Host="example.com").status == 403
    origin = server.address.rstrip("/")
    assert post(server, '{"paused": false}', Origin=origin).status == 204


def send(server, content, name="video.mp4", **headers):
    headers = {"Content_Type": "application/octet-stream", "X_Name": name, **headers}
    _, response, answer = ask(server, "POST", "/video", content, **headers)
    return response.status, answer.decode()


def test_a_file_is_played_and_the_one_before_it_deleted():
    with served() as server:
        assert send(server, b"first", "a%20b.mp4") == (204, "")
        assert send(server, b"second", "%2Fetc%2Fpasswd") == (204, "")
        played: Any = server.engine
        (first, name, content), (second, other, _) = played.played
        assert (name, content, first.name) == ("a b.mp4", b"first", "video.mp4")
        assert other == "passwd" and second.name == "video"
        assert not first.exists() and second.exists()
    assert not second.exists()


def test_a_file_that_cannot_be_played_leaves_the_one_before_it(server):
    send(server, b"first")
    status, answer = send(server, b"bad", "x.txt")
    assert status == 400 and answer == "x.txt: cannot be opened"
    ((path, *_),) = server.engine.played
    assert path.exists() and len(list(path.parents[1].iterdir())) == 1


def test_files_of_other_pages_and_too_large_ones_are_rejected(server):
    assert send(server, b"", Content_Type="multipart/form-data")[0] == 415
    assert send(server, b"", Origin="https://example.com")[0] == 403
    assert send(server, b"", Content_Length=str(MAX_VIDEO + 1))[0] == 413
    assert server.engine.played == []


def test_other_machines_need_the_token_once():
    with served("0.0.0.0") as server:
        path = f"/{server.address.rpartition('/')[2]}"
        assert len(server.token) > 20 and server.token in path
        for wrong in ("/", "/?token=", "/?token=wrong", "/events", "/page.js"):
            assert ask(server, "GET", wrong)[1].status == 403
        assert post(server, '{"paused": true}').status == 403
        _, response, _ = ask(server, "GET", path)
        assert response.status == 303 and response.headers["Location"] == "/"
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        existing = {"Cookie": cookie.partition(";")[0]}
        assert ask(server, "GET", "/", **existing)[1].status == 200
        assert post(server, '{"paused": true}', **existing).status == 204
        other = {"Origin": "https://example.com"}
        assert post(server, '{"paused": true}', **existing, **other).status == 403
        assert ask(server, "GET", "/", Cookie="dmnet_live=wrong")[1].status == 403


@pytest.mark.parametrize(
    "path", ["/page.html", "/?x=1", "/events/..", "/../etc/passwd", "/commands"]
)
def test_no_other_paths(server, path):
    assert ask(server, "GET", path)[1].status == 404
    assert ask(server, "GET", "/", Host="example.com")[1].status == 403


def test_no_other_methods(server):
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert ask(server, method, "/")[1].status == 501


def test_viewers_are_limited_and_may_come_back(server):
    open_ = [ask(server, "GET", "/events") for _ in range(MAX_VIEWERS)]
    assert ask(server, "GET", "/events")[1].status == 503
    for connection, response, _ in open_:
        response.close()
        connection.close()
    for _ in range(200):
        if server.viewers.acquire(blocking=False):
            server.viewers.release()
            return
        threading.Event().wait(0.05)
    pytest.fail("no viewer can come back")


def test_a_port_that_is_taken(server):
    with pytest.raises(OSError, match="--port 0"):
        Server(server.engine, server.server_port)


def test_viewer_disconnecting_during_a_response_is_not_an_error(server, capsys):
    server.pages["/"] = bytes(50_000_000), "text/html"
    address = "127.0.0.1", server.server_port
    with socket.create_connection(address, timeout=5) as viewer:
        viewer.sendall(
            f"GET / HTTP/1.1\r\nHost: localhost:{address[1]}\r\n\r\n".encode()
        )
        assert viewer.recv(100).startswith(b"HTTP/1.1 200")
    end = time.monotonic() + 10
    while any("process_request_thread" in t.name for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert capsys.readouterr().err == ""
