"""The engine of the live page, with a tiny network."""

import threading
import time
from pathlib import Path

import pytest

from dmnet_jax.live import __main__ as command
from dmnet_jax.live import engine as engines
from dmnet_jax.live.engine import FIRST, Engine
from dmnet_jax.predict import network as prediction
from dmnet_jax.video import sources
from dmnet_jax.video.sources import SourceError
from tests.support import live
from tests.support.live import ABOUT, EVERYTHING, Film, until


@pytest.fixture(scope="module")
def network():
    with live.network() as network:
        yield network


NONE = {"frames": 0}


def events_of(engine, count, seconds=60.0):
    """The next `count` events, some of which may be missed between."""
    number, events, end = engine._number, [], time.monotonic() + seconds
    while len(events) < count and time.monotonic() < end:
        now, event = engine.wait(number, 1.0)
        if now > number:
            number = now
            events.append(event)
    assert len(events) == count
    return events


def test_events_hold_the_frame_its_labels_and_what_is_remembered(network):
    with Engine(network, Film(), ABOUT) as engine:
        event = until(engine, lambda event: event.get("stats", NONE)["frames"] >= 6)
        assert event["status"] == "ok" and event["size"] == [128, 128]
        assert event["image"].startswith("data:image/jpeg;base64,")
        assert event["mask"].startswith("data:image/png;base64,")
        existing = set(engine.thumbs)
        assert len(event["local"]) == 1 and len(event["global"]) <= 8
        assert existing & {*event["local"], *event["global"]}
        assert event["stats"]["latency"]["steps"] >= 5
        assert len(engine.history) >= 5 and engine.history[-1][3] is True
        # A video that restarts is a new video.
        again = until(engine, lambda event: event["forgot"] == "reset-all")
        assert again["global_count"] == 1 and again["name"] == "000000"


def test_commands_are_executed(network):
    with Engine(network, Film(100_000), ABOUT) as engine:
        until(engine, lambda event: event["status"] == "ok")
        engine.order({"min_confidence": -0.0, "max_similarity": -900.0})
        strict = until(engine, lambda event: event["thresholds"]["min_confidence"] == 0)
        assert events_of(engine, 2)[1]["point"][3] is False, "no frame may be admitted"
        assert strict["calibrated"] == EVERYTHING
        engine.order({"forget": "reset-all"})
        until(engine, lambda event: event["forgot"] == "reset-all")
        engine.order({"paused": True})
        paused_event = until(engine, lambda event: event["paused"])
        time.sleep(0.3)
        assert engine.wait(0, 0)[1]["index"] == paused_event["index"]
        engine.order({"paused": False})
        assert not until(engine, lambda event: event["index"] > paused_event["index"])[
            "paused"
        ]


def test_a_source_that_fails_is_reported(network):
    with Engine(network, Film(3, fails=True), ABOUT) as engine:
        assert "torn" in until(engine, lambda event: "error" in event)["error"]


class Unexpected(Film):
    def __iter__(self):
        yield from super().__iter__()
        raise ZeroDivisionError("in the driver")


@pytest.mark.parametrize("live", [False, True])
def test_any_error_of_the_engine_is_shown_on_the_page(network, live):
    with Engine(network, Unexpected(3, live=live), ABOUT) as engine:
        message = until(engine, lambda event: "error" in event)["error"]
        assert "in the driver" in message and engine.failure == message
        engine.join()


def test_an_error_of_a_step_is_shown_too(network, monkeypatch):
    monkeypatch.setattr(Engine, "_result", lambda *_: 1 / 0)
    with Engine(network, Film(), ABOUT) as engine:
        engine.join()
        assert "ZeroDivisionError" in engine.wait(0, 0)[1]["error"]


def test_the_command_ends_with_an_error_when_the_engine_does(
    network, monkeypatch, capsys
):
    monkeypatch.setattr(prediction, "load_network", lambda *_, **options: network)
    monkeypatch.setattr(sources, "open_source", lambda _: Unexpected(2, live=True))
    monkeypatch.setattr(command, "SHUTDOWN_DELAY", 0.0)
    assert command.main(["--checkpoint", "RUN", "--source", "0", "--port", "0"]) == 1
    assert "error: 0: " in (err := capsys.readouterr().err) and "driver" in err


def test_an_invalid_port(network, monkeypatch, capsys):
    monkeypatch.setattr(prediction, "load_network", lambda *_, **options: network)
    with pytest.raises(SystemExit) as stop:
        command.main(["--checkpoint", "RUN", "--port", "70000"])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "--port 70000" in err and err.count("\n") == 1


def test_forgetting_while_paused_is_shown(network):
    with Engine(network, Film(100_000), ABOUT) as engine:
        until(engine, lambda event: event.get("global_count", 0) > 1)
        engine.order({"paused": True})
        until(engine, lambda event: event["paused"])
        engine.order({"forget": "reset-local"})
        assert until(engine, lambda event: not event["local"])["global_count"] > 1
        engine.order({"forget": "reset-all"})
        event_shown = until(engine, lambda event: not event["global"])
        assert event_shown["global_count"] == 0 and event_shown["paused"]
        engine.order({"min_confidence": -1.0, "max_similarity": -2.0})
        until(engine, lambda event: event["thresholds"]["max_similarity"] == -2)


def test_the_page_knows_which_memories_there_are(network):
    about = Engine(network, Film(), ABOUT).about
    assert about["global_size"] == 8 and about["local_memory"] is True
    assert not about["state"] and not about["can_compare"]
    with live.network(local="none", global_memory=False, state=True) as without:
        about = Engine(without, Film(), ABOUT, single=lambda: network).about
    assert about["global_size"] == 0 and about["local_memory"] is False
    assert about["state"] and about["can_compare"]


def test_the_video_plays_while_the_network_is_compiled(network, monkeypatch):
    compiled = threading.Event()
    session = network.session

    def slow(*arguments, **options):
        compiled.wait()
        return session(*arguments, **options)

    monkeypatch.setattr(network, "session", slow)
    with Engine(network, Film(100_000), ABOUT) as engine:
        raw = until(engine, lambda event: event["index"] >= 3)
        assert raw["status"] == "loading" and raw["image"] and "mask" not in raw
        assert not engine.history
        engine.order({"forget": "reset-all"})  # nothing to clear: no error
        compiled.set()
        event = until(engine, lambda event: event["status"] == "ok")
        assert event["mask"] and event["index"] > raw["index"]


def test_seeking_starts_a_new_video_and_shows_its_frame_while_paused(network):
    with Engine(network, Film(1000, duration=20.0), ABOUT) as engine:
        event = until(engine, lambda event: event["status"] == "ok")
        assert event["duration"] == 20 and event["seconds"] < 5
        engine.order({"paused": True})
        until(engine, lambda event: event["paused"])
        engine.order({"seek": 12.0})
        event = until(engine, lambda event: event["seconds"] >= 12)
        assert event["seconds"] == pytest.approx(12.0, abs=0.03) and event["paused"]
        assert event["forgot"] == "reset-all" and event["global_count"] == 1
        with pytest.raises(ValueError, match="no second 99"):
            engine.order({"seek": 99})


def test_other_sources_are_opened_and_a_failed_one_is_abandoned(network, monkeypatch):
    films = {"good": Film(1000), "torn": Film(3, fails=True)}

    def open_source(text):
        if text == "none":
            raise SourceError("none: no such file")
        return films[text]

    monkeypatch.setattr(engines, "open_source", open_source)
    names = {name: name for name in [*films, "none"]}
    with Engine(network, Film(1000), ABOUT, sources=names) as engine:
        assert engine.about["sources"] == {FIRST: ABOUT["source"], **names}
        engine.order({"source": "good"})
        until(engine, lambda event: event["source"] == "good")
        engine.order({"source": "torn"})
        event = until(engine, lambda event: event["notice"])
        assert event["source"] == FIRST and event["notice"] == "torn: the film is torn"
        with pytest.raises(ValueError, match="no such file"):
            engine.order({"source": "none"})
        with pytest.raises(ValueError, match="no source '/etc/passwd'"):
            engine.order({"source": "/etc/passwd"})
        assert not engine.failure


def test_a_file_that_cannot_be_played_is_named_as_the_viewer_knows_it(
    network, tmp_path
):
    (tmp_path / "video.mp4").write_text("not a video")
    engine = Engine(network, Film(), ABOUT)
    with pytest.raises(SourceError, match="^mine.mp4: cannot be opened"):
        engine.open_file(tmp_path / "video.mp4", "mine.mp4")


def test_a_file_that_breaks_off_is_named_as_the_viewer_knows_it(network, monkeypatch):
    class Broken(Film):
        def __iter__(self):
            yield from super().__iter__()
            raise SourceError("/tmp/x/video.mp4: ends after frame 3; it is truncated")

    monkeypatch.setattr(engines, "open_source", lambda text: Broken(3))
    with Engine(network, Film(1000), ABOUT) as engine:
        engine.open_file(Path("/tmp/x/video.mp4"), "mine.mp4")
        event = until(engine, lambda event: event["notice"])
        assert event["notice"] == "mine.mp4: ends after frame 3; it is truncated"
        assert event["source"] == FIRST and not engine.failure


def test_the_network_without_memory_is_shown_beside_it(network):
    with Engine(network, Film(1000), ABOUT, single=lambda: network) as engine:
        event = until(engine, lambda event: event["status"] == "ok")
        assert event["comparing"] == "off" and event["single"] is None
        engine.order({"compare": True})
        event = until(engine, lambda event: event.get("comparing") == "on")
        assert event["single"]["mask"].startswith("data:image/png")
        engine.order({"compare": False})
        until(engine, lambda event: event["comparing"] == "off")
    with pytest.raises(ValueError, match="no memory"):
        Engine(network, Film(), ABOUT).order({"compare": True})


def test_the_memory_of_an_exported_file_is_not_shown(network, monkeypatch):
    monkeypatch.setattr(network, "compiled", False)
    with Engine(network, Film(1000), ABOUT) as engine:
        event = until(engine, lambda event: event["status"] == "ok")
        assert event["mask"] and event["local"] == [] and engine.thumbs == {}
        engine.order(EVERYTHING)  # cannot be changed: ignored, the page hides it
        assert until(engine, lambda event: event["index"] > 20)["status"] == "ok"


def test_camera_is_followed_in_real_time(network):
    with Engine(network, Film(400, live=True), ABOUT) as engine:
        until(engine, lambda event: event["status"] == "ok")
        assert until(engine, lambda event: event["dropped"])["status"] == "ok"
