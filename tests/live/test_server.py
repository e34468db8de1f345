"""The page's server: what it tells, and whom; no network runs."""

import http.client
import json
import socket
import threading
import time

import pytest

from dmnet_jax.live.server import MAX_VIEWERS, Server


class Engine:
    """Publishes one event."""

    about = {"source": "synthetic", "checkpoint": "", "classes": []}
    history = [[0, -0.1, None, True, 5.0]]
    thumbs = {"0": "data:,"}

    def __init__(self):
        self.orders = []

    def wait(self, after, timeout):
        if after:
            threading.Event().wait(0.02)
        return 1, {"index": 0, "status": "ok"}

    def order(self, order):
        if order == {"bad": 1}:
            raise ValueError("unknown command")
        self.orders.append(order)


@pytest.fixture
def server():
    with Server(Engine(), 0) as server:  # pyright: ignore[reportArgumentType]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


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
    return ask(server, "POST", "/orders", body, Content_Type=content_type, **headers)[1]


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address.startswith("http://127.0.0.1:")


def test_the_page_needs_nothing_from_elsewhere(server):
    _, response, content = ask(server, "GET", "/")
    assert response.status == 200 and b"<canvas" in content
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in response.headers
    assert b"http://" not in content and b"https://" not in content


def test_events_begin_with_what_is_shown_and_its_history(server):
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


def test_orders_reach_the_engine(server):
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
def test_orders_that_are_none(server, body, status):
    assert post(server, body).status == status
    assert server.engine.orders == []


def test_orders_of_other_pages_and_forms_are_refused(server):
    assert post(server, "{}", "text/plain").status == 415
    assert post(server, "{}", Origin="https://example.com").status == 403
    assert post(server, "{}", Host="example.com").status == 403
    own = server.address.rstrip("/")
    assert post(server, '{"paused": false}', Origin=own).status == 204


@pytest.mark.parametrize(
    "path", ["/page.html", "/?x=1", "/events/..", "/../etc/passwd", "/orders"]
)
def test_nothing_else_is_there(server, path):
    assert ask(server, "GET", path)[1].status == 404
    assert ask(server, "GET", "/", Host="example.com")[1].status == 403


def test_other_methods_are_refused(server):
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert ask(server, method, "/")[1].status == 501


def test_viewers_are_limited_and_their_places_come_back(server):
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
    pytest.fail("nobody's place came back")


def test_taken_port_is_told(server):
    with pytest.raises(OSError, match="--port 0"):
        Server(server.engine, server.server_port)


def test_a_viewer_who_leaves_in_the_middle_is_no_error(server, capsys):
    server.page = bytes(50_000_000)
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
