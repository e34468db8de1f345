"""Clicks through the page in a browser, with a tiny network behind it."""

import shutil
import threading
from contextlib import contextmanager

import pytest
from PIL import Image

from dmnet_jax.live import engine as engines
from dmnet_jax.live.engine import Engine
from dmnet_jax.live.server import Server
from tests.support import live
from tests.support.live import ABOUT, Film


@pytest.fixture(scope="module")
def network():
    with live.network() as network:
        yield network


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


class Viewer:
    """A page in a browser, what it sent, and the errors it reported."""

    def __init__(self, engine, page):
        self.engine, self.page = engine, page
        self.errors, self.commands, order = [], [], engine.order
        engine.order = lambda command: (self.commands.append(command), order(command))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text))

    def wait(self, condition):
        # The page's policy forbids the evaluation that wait_for_function needs.
        for _ in range(1000):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(20)
        pytest.fail(f"in vain: {condition}; errors: {self.errors}")

    def pixels(self, canvas="video"):
        return self.page.evaluate(f"document.querySelector('#{canvas}').toDataURL()")

    def width(self):
        return self.page.evaluate("document.documentElement.scrollWidth")


@contextmanager
def viewer(browser, engine, width=1280, height=720):
    with engine, Server(engine, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        page = browser.new_page(viewport={"width": width, "height": height})
        viewer = Viewer(engine, page)
        try:
            page.goto(server.address)
            viewer.wait("event?.status === 'ok' && event.index > 3")
            yield viewer
            assert viewer.errors == []
        finally:
            page.close()
            server.shutdown()
            thread.join()


def test_the_memory_and_the_input(network, browser):
    engine = Engine(network, Film(100_000), ABOUT)
    with viewer(browser, engine, 390, 844) as view:
        page, wait = view.page, view.wait
        wait("document.querySelectorAll('#global img').length")
        assert page.locator("#legend li").all_inner_texts()[0].startswith("1")
        assert "shaft" in page.locator("#legend").inner_text()
        assert view.width() <= 390

        with page.expect_response("**/commands"):
            page.click("#forget-all")
        assert {"forget": "reset-all"} in view.commands
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
        assert view.width() <= 390
        page.click("#degrade >> text=none")
        wait("document.querySelector('#degraded').hidden")

        engine._playback.stop()  # as if the program hung
        wait("document.querySelector('#screen').className.includes('old')")
        assert "is old" in page.locator("#state").inner_text()
        engine._publish({**engine.wait(0, 0)[1], "error": "the film is torn"})
        wait("!document.querySelector('#trouble').hidden")


def test_what_is_painted(network, browser):
    with viewer(browser, Engine(network, Film(100_000), ABOUT)) as view:
        page, wait = view.page, view.wait
        page.click("#pause")
        wait("document.querySelector('#state').textContent.startsWith('paused')")
        page.wait_for_timeout(300)
        painted = view.pixels()
        page.locator("#opacity").fill("0")
        bare = view.pixels()
        assert bare != painted
        page.locator("#opacity").fill("50")
        assert view.pixels() == painted
        for item in page.locator("#legend button").all():
            item.click()
            assert item.get_attribute("aria-pressed") == "false"
        assert view.pixels() == bare, "all classes are hidden"
        for item in page.locator("#legend button").all():
            item.click()
        assert view.pixels() == painted

        page.emulate_media(color_scheme="light")
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        page.click("#theme")
        assert page.evaluate(background) != light
        page.click("#theme")
        assert page.evaluate(background) == light


def test_snapshots_recordings_and_full_screen(network, browser, tmp_path):
    with viewer(browser, Engine(network, Film(100_000), ABOUT)) as view:
        page = view.page
        with page.expect_download() as download:
            page.keyboard.press("s")
        download.value.save_as(tmp_path / "shot.png")
        with Image.open(tmp_path / "shot.png") as picture:
            assert picture.format == "PNG" and picture.size == (128, 128)
        page.keyboard.press("r")
        view.wait("document.querySelector('#record').textContent === 'Stop recording'")
        page.wait_for_timeout(500)
        with page.expect_download() as download:
            page.keyboard.press("r")
        download.value.save_as(tmp_path / "recording")
        assert (tmp_path / "recording").stat().st_size > 1000
        page.keyboard.press("f")
        view.wait("document.fullscreenElement?.id === 'screens'")
        page.keyboard.press("f")
        view.wait("document.fullscreenElement === null")


def test_playing_and_seeking_by_keyboard(network, browser):
    film = Film(1000, duration=20.0)
    with viewer(browser, Engine(network, film, ABOUT)) as view:
        page, wait = view.page, view.wait
        page.keyboard.press(" ")
        wait("event.paused")
        page.keyboard.press("ArrowRight")
        wait("event.seconds >= 2")
        seconds = page.evaluate("event.seconds")
        page.keyboard.press("ArrowLeft")
        wait(f"event.seconds < {seconds}")
        page.locator("#seek").evaluate(
            "(slider) => { slider.value = 15;"
            "slider.dispatchEvent(new Event('input'));"
            "slider.dispatchEvent(new Event('change')); }"
        )
        wait("event.seconds >= 15 && event.paused")
        wait("document.querySelector('#time').textContent === '0:15 / 0:20'")
        page.keyboard.press(" ")
        wait("!event.paused && event.seconds > 15")


def test_sources_and_the_single_frame(network, browser, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "open_source", lambda text: Film(50_000))
    engine = Engine(
        network,
        Film(100_000),
        ABOUT,
        sources={"rendered video": "synthetic"},
        single=lambda: network,
    )
    with viewer(browser, engine) as view:
        page, wait = view.page, view.wait
        page.select_option("#source", "rendered video")
        wait("event.source === 'rendered video'")
        (tmp_path / "my video.mp4").write_bytes(b"a video")
        page.set_input_files("#file", tmp_path / "my video.mp4")
        wait("event.source === 'my video.mp4'")
        wait("document.querySelector('#what').textContent.startsWith('my video.mp4')")

        page.click("#compare")
        wait("event.comparing === 'on'")
        wait("!document.querySelector('#single-screen').hidden")
        view.page.wait_for_timeout(200)
        assert view.pixels("single") == view.pixels(), "the same network, in this test"
        page.click("#compare")
        wait("document.querySelector('#single-screen').hidden")


def test_controls_are_in_view_on_a_small_screen(network, browser):
    film = Film(1000, duration=20.0)
    with viewer(browser, Engine(network, film, ABOUT, single=lambda: network)) as view:
        for name in ("video", "seek", "pause", "compare", "source", "degrade"):
            box = view.page.locator(f"#{name}").bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 720, name
        assert view.width() <= 1280
