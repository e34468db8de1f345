"""Folders and videos, their faults, frames in real time, and lost cameras."""

import itertools
import os
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from dmnet_jax.video.capture import Every, Latest, Reconnecting, first_frame
from dmnet_jax.video.sources import (
    Captured,
    Rendered,
    SourceError,
    open_source,
)
from tests.support import clips
from tests.support.tiny_run import ROOT

av = pytest.importorskip("av", reason='needs PyAV: pip install -e ".[video]"')
from dmnet_jax.video.pyav import VideoFile, VideoWriter  # noqa: E402


def scene(index, size=(48, 64)):
    image = np.full((*size, 3), 40, np.uint8)
    image[8:24, 2 + index % 40 :][:, :12] = (250, 220, 30)
    return image


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    path = tmp_path_factory.mktemp("movie") / "a.mp4"
    with VideoWriter(path, 25.0) as writer:
        for index in range(60):
            writer.add(scene(index), index / 25)
    return path


def test_folder_is_read_in_natural_order(tmp_path):
    for index in (10, 2, 1):
        Image.fromarray(scene(index)).save(tmp_path / f"f{index}.png")
    (tmp_path / "notes.txt").write_text("")
    frames = list(open_source(str(tmp_path)))
    assert [frame.name for frame in frames] == ["f1", "f2", "f10"]
    np.testing.assert_array_equal(frames[1].image, scene(2))


@pytest.mark.parametrize(
    ("files", "message"),
    [((), "contains no"), (("a.png", "a.jpg"), "two images are named a")],
)
def test_invalid_source_folders(tmp_path, files, message):
    for name in files:
        Image.fromarray(scene(0)).save(tmp_path / name)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path))


def test_missing_and_unreadable_sources(tmp_path):
    with pytest.raises(SourceError, match="no such file or folder"):
        open_source(str(tmp_path / "nothing.mp4"))
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(SourceError, match="text.mp4: cannot be opened"):
        open_source(str(tmp_path / "text.mp4"))


def test_rendered_video_is_deterministic():
    one, two = (list(Rendered((64, 96), frames=2)) for _ in range(2))
    np.testing.assert_array_equal(one[1].image, two[1].image)
    assert one[1].image.shape == (64, 96, 3)


def test_written_video_is_read_back(movie):
    source = open_source(str(movie))
    frames = list(source)
    assert source.rate == pytest.approx(25, rel=0.05) and len(frames) == 60
    assert frames[10].seconds == pytest.approx(0.4) and not frames[10].damage
    difference = np.abs(frames[10].image.astype(int) - scene(10)).mean()
    assert difference < 8


def test_odd_sizes_are_written(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4", 10) as writer:
        writer.add(scene(0, (49, 65)), 0.0)
    assert next(iter(VideoFile(tmp_path / "odd.mp4"))).image.shape == (50, 66, 3)


def test_damage_is_detected(movie, tmp_path):
    content = bytearray(movie.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) // 4, len(content), 60):
        content[place] ^= 0xFF
    (tmp_path / "bad.mp4").write_bytes(content)
    damaged, error = 0, None
    try:
        for frame in VideoFile(tmp_path / "bad.mp4"):
            damaged += bool(frame.damage)
    except SourceError as caught:
        error = caught
    assert damaged or error


WRITE = """
import sys, time
import numpy as np
from dmnet_jax.video.pyav import VideoWriter
writer = VideoWriter(sys.argv[1], 25)
for index in range(10_000):
    writer.add(np.full((48, 64, 3), index % 200, np.uint8), index / 25)
    if index == 200:
        print("there", flush=True)
        time.sleep(60)
"""


def test_video_of_a_killed_program_plays(tmp_path):
    path = tmp_path / "killed.mp4"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, path], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline()
    process.kill()
    process.communicate()
    assert 150 <= len(list(VideoFile(path))) <= 201


class Flaky:
    """A camera that fails after some frames, again at each opening."""

    rate, live = 25.0, True

    def __init__(self, *givings):
        self.givings = list(givings)

    def __iter__(self):
        if not self.givings:
            raise SourceError("no such device")
        for index in range(self.givings.pop(0)):
            yield Captured(scene(index), index / 25, str(index))
        raise SourceError("device is gone")


def test_lost_camera_is_reopened_with_growing_waits():
    waits = []
    frames = Reconnecting(Flaky(3, 0, 0, 2), attempts=6, wait=waits.append)
    simulated = []
    with pytest.raises(SourceError, match="gave up after 6 .* no such device"):
        for captured in frames:
            simulated.append(captured.name)
    assert simulated == [f"{index:06}" for index in range(5)], (
        "frame numbers must continue"
    )
    assert waits == [0.5, 1, 2, 0.5, 1, 2, 4, 8]
    assert frames.losses == 2 and not frames.connected


def test_video_that_fails_is_not_read_again():
    source = Flaky(1)
    source.live = False
    with pytest.raises(SourceError, match="gone"):
        list(Reconnecting(source, wait=lambda _: pytest.fail("waited")))


class Ticking:
    """A camera of 100 frames, one every 5 ms, that then blocks until `freed` is set."""

    rate, live = 200.0, True

    def __init__(self):
        self.freed = threading.Event()

    def __iter__(self):
        for index in range(100):
            time.sleep(0.005)
            yield Captured(scene(index), index / 200, str(index))
        self.freed.wait(60)


def test_slow_network_gets_the_latest_frame_and_drops_are_counted(capsys):
    ages, names, camera = [], [], Ticking()
    with Latest(camera) as latest:
        while True:
            try:
                timed = latest.next(timeout=0.5)
            except TimeoutError:
                break
            time.sleep(0.03)  # a slow network
            ages.append(time.monotonic() - timed.arrived)
            names.append(int(timed.captured.name))
        assert latest.captured == 100 and names[-1] == 99
        assert latest.dropped == 100 - len(names) > 20
    assert names == sorted(names)
    assert max(ages) < 2, "frames must not queue up"
    camera.freed.set()
    latest._thread.join(timeout=20)
    assert not latest._thread.is_alive()
    assert not capsys.readouterr().err, "nobody waits for these frames any more"


def test_video_is_played_at_its_rate_and_ends():
    began = time.monotonic()
    with Latest(Rendered((64, 96), frames=6)) as latest:
        count = 0
        while latest.next(timeout=20) is not None:
            count += 1
    assert count + latest.dropped == 6 and time.monotonic() - began >= 0.19


def test_failure_of_the_source_reaches_the_reader():
    with Latest(Flaky(), attempts=1) as latest:
        with pytest.raises(SourceError, match="gave up after 1"):
            latest.next(timeout=20)


class Failing:
    """A source that raises an unexpected error."""

    rate, live = 25.0, True

    def __iter__(self):
        yield Captured(scene(0), 0.0, "0")
        raise ZeroDivisionError("in the driver")


@pytest.mark.parametrize("reader", [Latest, Every])
def test_unexpected_thread_error_is_not_the_end_of_the_stream(reader):
    with reader(Failing()) as frames:
        assert frames.next(timeout=20) is not None
        with pytest.raises(SourceError, match="ZeroDivisionError.*in the driver"):
            frames.next(timeout=20)


def test_slow_reader_of_a_file_gets_every_frame():
    with Every(Rendered((64, 96), frames=6)) as frames:
        names = []
        while (timed := frames.next(timeout=20)) is not None:
            time.sleep(0.02)
            names.append(timed.captured.name)
    assert len(names) == 6 and frames.dropped == 0


class Dead:
    """A camera that takes long to report that it is missing."""

    rate, live = None, True

    def __init__(self):
        self.freed = threading.Event()

    def __iter__(self):
        self.freed.wait(60)
        raise SourceError("no such device")
        yield


def test_waiting_for_a_camera_can_be_stopped():
    began, camera = time.monotonic(), Dead()
    assert first_frame(camera, lambda: time.monotonic() - began > 0.2) is None
    assert time.monotonic() - began < 2
    camera.freed.set()


def test_missing_camera_is_reported_in_the_terminal(capsys):
    frames = Reconnecting(Flaky(), attempts=2, wait=lambda _: None)
    with pytest.raises(SourceError, match="gave up"):
        list(frames)
    assert "no such device; trying again in 0.5 s" in capsys.readouterr().err


class Jumpy:
    """A recording whose clock jumps, as if the recorder had been switched off."""

    rate, live = 100.0, False

    def __iter__(self):
        for index in range(20):
            yield Captured(scene(index), index / 100 + 9000 * (index > 9), str(index))


def test_a_jump_of_the_clock_is_not_waited_for():
    began = time.monotonic()
    with Latest(Jumpy()) as latest:
        while latest.next(timeout=5) is not None:
            pass
    assert latest.captured == 20 and time.monotonic() - began < 2


def test_recording_at_a_url_is_not_reopened(movie, tmp_path):
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(movie.parent))
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        source = open_source(f"http://127.0.0.1:{server.server_port}/{movie.name}")
        with Every(source) as frames:
            count = 0
            while frames.next(timeout=20) is not None:
                count += 1
        assert count == 60 and not source.live and frames.losses == 0
        missing = open_source(f"http://127.0.0.1:{server.server_port}/no.mp4")
        with pytest.raises(SourceError, match="cannot be opened"):
            first_frame(missing)
    finally:
        server.shutdown()
        server.server_close()
    assert open_source("rtsp://127.0.0.1/cam").live and open_source("0").live


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        """Suppresses the log."""


class Endless(Quiet):
    """Sends a video like a camera, without a length."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.content)


def test_url_without_a_length_is_live_and_is_reopened(tmp_path):
    path = clips.write_video(tmp_path / "a.ts", "mpeg2video", 8)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.content = path.read_bytes()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        source = open_source(f"http://127.0.0.1:{server.server_port}/stream")
        frames = Reconnecting(source, wait=lambda _: None, report=lambda _: None)
        names = [frame.name for frame in itertools.islice(frames, 20)]
        assert source.live and frames.losses == 2 and names[-1] == "000019"
    finally:
        server.shutdown()
        server.server_close()


def test_image_formats_equal_those_of_training(tmp_path):
    for index in range(3):
        Image.fromarray(scene(index)).save(tmp_path / f"{index}.jpg")
        (tmp_path / f"._{index}.jpg").write_bytes(b"\0\5\26\7 of a Mac")
    (tmp_path / "folder.png").mkdir()
    assert [frame.name for frame in open_source(str(tmp_path))] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "name", ["a\nb.png", "a\x1b[31m.png", os.fsdecode(b"\xff.png")]
)
def test_names_with_control_characters_are_refused(tmp_path, name):
    Image.fromarray(scene(0)).save(tmp_path / "right.png")
    (tmp_path / name).write_bytes((tmp_path / "right.png").read_bytes())
    with pytest.raises(SourceError, match="the name .*; rename it"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("broken", [0, 2, 5])
def test_unreadable_image_keeps_its_index(tmp_path, broken):
    for index in range(6):
        Image.fromarray(scene(index)).save(tmp_path / f"{index}.jpg")
    path = tmp_path / f"{broken}.jpg"
    path.write_bytes(path.read_bytes()[:300] if broken == 2 else b"")
    frames = list(open_source(str(tmp_path)))
    assert [bool(frame.damage) for frame in frames] == [i == broken for i in range(6)]
    assert str(path) in frames[broken].damage and "\n" not in frames[broken].damage
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}


def test_folder_of_unreadable_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match="no image can be read.*a.png"):
        list(open_source(str(tmp_path)))
