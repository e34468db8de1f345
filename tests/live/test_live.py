"""A tiny network at work behind the page: the engine alone, then in a browser."""

import itertools
import shutil
import threading
import time

import pytest

from dmnet_jax import streaming
from dmnet_jax.live import __main__ as command
from dmnet_jax.live.engine import Engine
from dmnet_jax.live.server import Server
from dmnet_jax.predict import network as prediction
from dmnet_jax.streaming import TrainedRun
from dmnet_jax.video import sources
from dmnet_jax.video.sources import Captured, SourceError
from tests.support import tiny_run

SIZE = (128, 128)
ABOUT = {"source": "a" * 200, "checkpoint": "runs/tiny"}


EVERYTHING = {"min_confidence": -9.0, "max_similarity": 0.0}


@pytest.fixture(scope="module")
def trained():
    with tiny_run.shallow():
        classes = [{"name": n, "color": [9, 9, 9]} for n in tiny_run.CLASSES]
        about = {"classes": classes}
        yield TrainedRun(*tiny_run.network(), tiny_run.tiny_config(), about)


@pytest.fixture(autouse=True)
def compiled_once(trained, monkeypatch):
    """A program that remembers every frame."""
    program = tiny_run.program(SIZE).with_thresholds(EVERYTHING)
    monkeypatch.setattr(prediction, "compile", lambda *_, **options: program)


class Film:
    """Moving squares, again and again; may break off."""

    rate = 50.0

    def __init__(self, frames=8, live=False, fails=False):
        self.frames, self.live, self.fails = frames, live, fails

    def __iter__(self):
        for index in range(self.frames):
            # Noise of its own, or a frame that follows a repetition would be frozen.
            image = tiny_run.picture(index % 8, SIZE, seed=index)[0]
            yield Captured(image, index / 50, f"{index:06}")
        if self.fails:
            raise SourceError("the film is torn")


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


def until(engine, condition):
    return next(
        event
        for event in (events_of(engine, 1)[0] for _ in itertools.count())
        if condition(event)
    )


def test_events_tell_the_frame_its_labels_and_what_is_remembered(trained):
    with Engine(trained, Film(), ABOUT) as engine:
        event = until(engine, lambda event: event["index"] >= 5)
        assert event["status"] == "ok" and event["size"] == [128, 128]
        assert event["image"].startswith("data:image/jpeg;base64,")
        assert event["mask"].startswith("data:image/png;base64,")
        known = set(engine.thumbs)
        assert len(event["local"]) == 1 and len(event["global"]) <= 8
        assert known & {*event["local"], *event["global"]}
        assert event["stats"]["latency"]["steps"] >= 5
        assert len(engine.history) >= 5 and engine.history[-1][3] is True
        # A film that begins again is a new video.
        again = until(engine, lambda event: event["forgot"] == "reset-all")
        assert again["global_count"] == 1 and again["index"] % 8 == 0


def test_orders_are_obeyed(trained):
    with Engine(trained, Film(100_000), ABOUT) as engine:
        events_of(engine, 3)
        engine.order({"min_confidence": -0.0, "max_similarity": -900.0})
        strict = until(engine, lambda event: event["thresholds"]["min_confidence"] == 0)
        assert events_of(engine, 2)[1]["point"][3] is False, "none is admitted now"
        assert strict["calibrated"] == EVERYTHING
        engine.order({"forget": "reset-all"})
        until(engine, lambda event: event["forgot"] == "reset-all")
        engine.order({"paused": True})
        held = until(engine, lambda event: event["paused"])
        time.sleep(0.3)
        assert engine.wait(0, 0)[1]["index"] == held["index"]
        engine.order({"paused": False})
        assert events_of(engine, 1)[0]["index"] > held["index"]


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"paused": 1},
        {"forget": "reset"},
        {"min_confidence": -1.0},
        {"min_confidence": float("nan"), "max_similarity": -1},
        {"min_confidence": "low", "max_similarity": -1},
        {"paused": True, "forget": "reset-all"},
    ],
)
def test_no_other_orders(trained, order):
    with pytest.raises(ValueError, match="unknown command"):
        Engine(trained, Film(), ABOUT).order(order)


def test_source_that_fails_is_told(trained):
    with Engine(trained, Film(3, fails=True), ABOUT) as engine:
        assert "torn" in until(engine, lambda event: "error" in event)["error"]


class Unforeseen(Film):
    def __iter__(self):
        yield from super().__iter__()
        raise ZeroDivisionError("in the driver")


@pytest.mark.parametrize("live", [False, True])
def test_whatever_ends_the_engine_is_told_on_the_page(trained, live):
    with Engine(trained, Unforeseen(3, live=live), ABOUT) as engine:
        told = until(engine, lambda event: "error" in event)["error"]
        assert "in the driver" in told and engine.failure == told
        engine.join()


def test_failure_of_a_step_is_told_too(trained, monkeypatch):
    monkeypatch.setattr(Engine, "_step", lambda *_: 1 / 0)
    with Engine(trained, Film(), ABOUT) as engine:
        engine.join()
        assert "ZeroDivisionError" in engine.wait(0, 0)[1]["error"]


def test_the_command_ends_with_an_error_when_the_engine_does(
    trained, monkeypatch, capsys
):
    monkeypatch.setattr(streaming, "load_run", lambda *_: trained)
    monkeypatch.setattr(sources, "open_source", lambda _: Unforeseen(2, live=True))
    monkeypatch.setattr(command, "SHUTDOWN_DELAY", 0.0)
    assert command.main(["--checkpoint", "RUN", "--source", "0", "--port", "0"]) == 1
    assert "error: 0: " in (err := capsys.readouterr().err) and "driver" in err


def test_a_port_that_is_none(trained, monkeypatch, capsys):
    monkeypatch.setattr(streaming, "load_run", lambda *_: trained)
    with pytest.raises(SystemExit) as stop:
        command.main(["--checkpoint", "RUN", "--port", "70000"])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "--port 70000" in err and err.count("\n") == 1


def test_forgetting_while_paused_is_shown(trained):
    with Engine(trained, Film(100_000), ABOUT) as engine:
        until(engine, lambda event: event["global_count"] > 1)
        engine.order({"paused": True})
        until(engine, lambda event: event["paused"])
        engine.order({"forget": "reset-local"})
        assert until(engine, lambda event: not event["local"])["global_count"] > 1
        engine.order({"forget": "reset-all"})
        shown = until(engine, lambda event: not event["global"])
        assert shown["global_count"] == 0 and shown["paused"]
        engine.order({"min_confidence": -1.0, "max_similarity": -2.0})
        until(engine, lambda event: event["thresholds"]["max_similarity"] == -2)


def test_the_page_knows_which_memories_there_are(trained):
    without = trained.model.clone(local="none", global_memory=False)
    about = Engine(trained._replace(model=without), Film(), ABOUT).about
    assert about["global_size"] == 0 and about["local_memory"] is False
    about = Engine(trained, Film(), ABOUT).about
    assert about["global_size"] == 8 and about["local_memory"] is True


def test_camera_is_followed_in_real_time(trained):
    with Engine(trained, Film(400, live=True), ABOUT) as engine:
        event = events_of(engine, 3)[-1]
        assert event["status"] == "ok" and event["dropped"] > 0


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip(
        "playwright.sync_api", reason='needs pip install -e ".[browser]"'
    )
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as playwright:
        with playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        ) as browser:
            yield browser


def test_clicking_through_the_page(trained, browser):
    with Engine(trained, Film(100_000), ABOUT) as engine, Server(engine, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        page = browser.new_page(viewport={"width": 390, "height": 844})
        errors, orders, order = [], [], engine.order
        engine.order = lambda given: (orders.append(given), order(given))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))

        def wait(condition):
            # The page's policy forbids the evaluation that wait_for_function needs.
            for _ in range(1000):
                if page.evaluate(condition):
                    return
                page.wait_for_timeout(20)
            pytest.fail(f"in vain: {condition}")

        try:
            page.goto(server.address)
            wait("event?.index > 3 && document.querySelectorAll('#global img').length")
            assert page.locator("#legend li").all_inner_texts()[0].startswith("1")
            assert "shaft" in page.locator("#legend").inner_text()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390

            page.click("#pause")
            wait("document.querySelector('#state').textContent.startsWith('paused')")
            pixels = "document.querySelector('#video').toDataURL()"
            page.wait_for_timeout(300)
            painted = page.evaluate(pixels)
            page.locator("#opacity").fill("0")
            assert page.evaluate(pixels) != painted
            page.locator("#opacity").fill("50")
            assert page.evaluate(pixels) == painted
            page.click("#pause")
            wait("!event.paused")

            with page.expect_response("**/orders"):
                page.click("#forget-all")
            assert {"forget": "reset-all"} in orders
            page.locator("#alpha").evaluate(
                "(slider) => { slider.value = slider.max;"
                "slider.dispatchEvent(new Event('input'));"
                "slider.dispatchEvent(new Event('change')); }"
            )
            wait("event.thresholds.min_confidence > event.calibrated.min_confidence")
            page.click("#calibrated")
            wait("event.thresholds.min_confidence === event.calibrated.min_confidence")

            page.click("#degrade >> text=smoke")
            wait("!document.querySelector('#degraded').hidden")
            badge = page.locator("#degraded").inner_text()
            assert badge == "Input degraded: smoke, severity 3"
            page.locator("#severity").fill("5")
            wait("event.degraded === 'smoke, severity 5'")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            page.click("#degrade >> text=none")
            wait("document.querySelector('#degraded').hidden")

            engine._stop.set()  # as if the program hung
            wait("document.querySelector('#screen').className.includes('old')")
            assert "is old" in page.locator("#state").inner_text()
            engine._publish({**engine.wait(0, 0)[1], "error": "the film is torn"})
            wait("!document.querySelector('#trouble').hidden")
            assert errors == []
        finally:
            page.close()
            server.shutdown()
            thread.join()
