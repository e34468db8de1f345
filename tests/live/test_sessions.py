"""Sessions that are opened in the background."""

import threading
import time

import pytest

from dmnet_jax.live.sessions import Sessions


class Network:
    """Opens sessions that know their size, once `go` is set."""

    def __init__(self):
        self.go, self.opened = threading.Event(), []

    def session(self, size, **options):
        self.go.wait(10)
        if size == (0, 0):
            raise ValueError("too small")
        self.opened.append(Session(size, options["deadline"]))
        return self.opened[-1]


class Session:
    def __init__(self, size, deadline):
        self.size, self.deadline, self.closed = size, deadline, False

    def close(self):
        self.closed = True


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def sessions(network):
    sessions = Sessions(lambda: network)
    yield sessions
    network.go.set()
    sessions.shutdown()


def ready(sessions, *options):
    end = time.monotonic() + 10
    while (session := sessions.session(*options)) is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    return session


def test_opening_does_not_block(network, sessions):
    assert sessions.session((4, 4), 0.1) is None
    assert sessions.session((4, 4), 0.1) is None
    network.go.set()
    session = ready(sessions, (4, 4), 0.1)
    assert session.size == (4, 4) and session.deadline == 0.1
    assert sessions.session((4, 4), 0.1) is session and len(network.opened) == 1


def test_another_size_or_deadline_gets_another_session(network, sessions):
    network.go.set()
    first = ready(sessions, (4, 4), 0.1)
    second = ready(sessions, (8, 8), 0.1)
    third = ready(sessions, (8, 8), 0.2)
    assert first.closed and second.closed and not third.closed
    assert third.deadline == 0.2


def test_an_error_is_raised_to_the_caller_and_another_size_works(network, sessions):
    network.go.set()
    with pytest.raises(ValueError, match="too small"):
        ready(sessions, (0, 0), 0.1)
    assert ready(sessions, (4, 4), 0.1).size == (4, 4)


def test_the_network_is_loaded_once(network):
    loads = []
    sessions = Sessions(lambda: loads.append(1) or network)
    network.go.set()
    ready(sessions, (4, 4), 0.1)
    ready(sessions, (8, 8), 0.1)
    sessions.shutdown()
    assert loads == [1] and network.opened[-1].closed
