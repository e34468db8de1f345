"""Prediction of several videos, in all formats, with all engines, and after kills."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from data_pipelines.annotations.__main__ import main as convert
from data_pipelines.io.files import folder_lock
from data_pipelines.sources.folder import open_folder
from dmnet_jax.export.stablehlo import export_step
from dmnet_jax.models.protocol import Output, VideoSegmenter
from dmnet_jax.predict.__main__ import main
from dmnet_jax.predict.videos import find_videos
from dmnet_jax.predict.worker import count_frames
from dmnet_jax.streaming.artifact import write_artifact
from dmnet_jax.streaming.program import Interface
from dmnet_jax.video.sources import SourceError, open_source
from tests.support import tiny_run

NAMES = ("one", "two", "ten")
FRAMES = 4
LONG = 150
"""Number of frames of "two", long enough to be killed while it is segmented."""


class Brightness(VideoSegmenter):
    """Compares brightness with a running mean, so that labels depend on the memory."""

    num_classes: int = 3

    @nn.nowrap
    def init_memory(self, batch, size, key):
        return {"mean": jnp.zeros(batch)}

    @nn.nowrap
    def reset(self, memory, what):
        return {"mean": jnp.where(what == 0, memory["mean"], 0)}

    def step(self, memory, frame, *, active=None, train=False):
        light = frame[:, ::4, ::4].mean(-1, dtype=jnp.float32)
        mean = 0.7 * memory["mean"] + 0.3 * light.mean((1, 2))
        excess = light - mean[:, None, None]
        logits = jnp.stack([9 - jnp.abs(excess - 20), excess - 20, 20 - excess], -1)
        return {"mean": mean}, Output(logits, mean, mean, mean > 0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported network of a few operations, which any process can load."""
    interface = Interface((64, 64), 1, 3, (64, 64))
    content, notes = export_step(Brightness(), {}, interface)
    notes |= {"classes": [{"name": n, "color": [9, 9, 9]} for n in tiny_run.CLASSES]}
    folder = tmp_path_factory.mktemp("exported")
    return write_artifact(folder, "model", {".jax": content}, interface, notes)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Folders of images, one of which has them in a subfolder frames/."""
    root = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate(NAMES):
        folder = root / name / "frames" if name == "two" else root / name
        folder.mkdir(parents=True)
        for index in range(LONG if name == "two" else FRAMES):
            image = tiny_run.picture(index % 8, (64, 80), seed=seed)[0]
            Image.fromarray(image).save(folder / f"f{index}.png")
    return root


def arguments(exported, source, out, *more):
    flags = {"--checkpoint": exported, "--source": source, "--out": out}
    return [str(text) for pair in flags.items() for text in pair] + [*map(str, more)]


@pytest.fixture(scope="module")
def sequential(exported, videos, tmp_path_factory):
    """The results of an uninterrupted run, one video after another."""
    out = tmp_path_factory.mktemp("sequential") / "out"
    assert main(arguments(exported, videos, out, "--no-overlay")) == 0
    return out


def files_of(out):
    """Returns the contents of all files, without measured times."""
    files = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name == "summary.json":
            files[name] = json.loads(path.read_text())
            for timed in ("wall_seconds", "frames_a_second"):
                del files[name][timed]
            del files[name]["session"]["latency"]
        elif path.name == "frames.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            files[name] = [{**line, "latency_ms": 0} for line in lines]
        elif path.is_file():
            files[name] = path.read_bytes()
    return files


def test_each_video_has_a_folder_with_the_results_of_a_single_source(
    exported, videos, sequential, tmp_path
):
    assert sorted(path.name for path in sequential.iterdir()) == sorted(NAMES)
    source = videos / "two" / "frames"
    assert main(arguments(exported, source, tmp_path / "out", "--no-overlay")) == 0
    single, several = files_of(tmp_path / "out"), files_of(sequential / "two")
    assert single.keys() == several.keys() and len(single) == LONG + 2
    for summary in (single.pop("summary.json"), several.pop("summary.json")):
        assert summary["frames_written"] == LONG
    assert single == several


def test_finished_videos_are_kept_if_their_settings_are_the_same(
    exported, videos, sequential, tmp_path, capsys
):
    command = arguments(exported, videos, tmp_path / "out", "--no-overlay")
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "3/3" in output and "left" in output
    assert "3 of 3 videos segmented" in output
    assert files_of(tmp_path / "out") == files_of(sequential)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(command) == 0
    assert "3 of 3 videos are already finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(SystemExit):
        main([*command, "--frames", "2"])
    assert "summary.json: was made with" in capsys.readouterr().err
    # Results of different weights of one checkpoint are not mixed either.
    (tmp_path / "out" / "ten").rename(tmp_path / "elsewhere")
    for name in ("one", "two"):
        path = tmp_path / "out" / name / "summary.json"
        changed = json.loads(path.read_text()) | {"weights_sha256": "0"}
        path.write_text(json.dumps(changed))
    with pytest.raises(SystemExit):
        main(command)
    assert "made with other weights" in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra ray"
)
def test_ray_gives_the_same_files(exported, videos, sequential, tmp_path):
    command = arguments(exported, videos, tmp_path / "out", "--no-overlay")
    done = run([*command, "--engine", "ray", "--jobs", "2"])
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "out") == files_of(sequential)


def run(command):
    program = [sys.executable, "-m", "dmnet_jax.predict", *command]
    return subprocess.run(
        program, cwd=tiny_run.ROOT, capture_output=True, text=True, timeout=300
    )


def test_killed_and_restarted_processes_give_the_same_files(
    exported, videos, sequential, tmp_path
):
    out = tmp_path / "out"
    command = arguments(exported, videos, out, "--no-overlay")
    program = [sys.executable, "-m", "dmnet_jax.predict", *command, "--jobs", "2"]
    killed = subprocess.Popen(program, cwd=tiny_run.ROOT)
    partial = out / ".two.partial"
    deadline = time.monotonic() + 200
    while len(list(partial.glob("masks/f*"))) < 2 and time.monotonic() < deadline:
        assert killed.poll() is None
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    while time.monotonic() < deadline:  # until the child processes have ended too
        with folder_lock(partial) as free:
            if free:
                break
        time.sleep(0.02)
    assert partial.is_dir() and not (out / "two").exists()
    for name in ("one", "ten"):
        if (out / name).exists():
            assert files_of(out / name) == files_of(sequential / name)
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("[a-z]*/summary.json")}
    assert main([*command, "--jobs", "2"]) == 0
    assert files_of(out) == files_of(sequential)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_an_unreadable_video_does_not_stop_the_others(
    exported, videos, tmp_path, capsys
):
    root = tmp_path / "videos"
    (root / "whole").mkdir(parents=True)
    (root / "broken.mp4").write_bytes(b"no video")
    for index in range(2):
        image = tiny_run.picture(index)[0]
        Image.fromarray(image).save(root / "whole" / f"{index}.bmp")
    command = arguments(exported, root, tmp_path / "out")
    assert main(command) == 1
    assert "broken: failed" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
    # "lost" results are replaced; results of another command are rejected.
    path = tmp_path / "out" / "whole" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({**summary, "lost": "cut short"}))
    assert main(command) == 1
    assert json.loads(path.read_text())["lost"] == ""
    path.write_text("{}")
    with pytest.raises(SystemExit):
        main(command)
    assert "whole: not a result of this command" in capsys.readouterr().err


def test_a_video_in_progress_in_another_process_is_skipped(
    exported, videos, sequential, tmp_path, capsys
):
    out = tmp_path / "out"
    command = arguments(exported, videos, out, "--no-overlay")
    with folder_lock(out / ".one.partial"):
        assert main(command) == 0
    output = capsys.readouterr().out
    assert "one: skipped" in output
    assert "2 of 3 videos segmented, 0 with errors" in output
    assert sorted(path.name for path in out.glob("[a-z]*")) == ["ten", "two"]
    assert main(command) == 0
    assert files_of(out) == files_of(sequential)


@pytest.mark.parametrize("form", ["coco", "cvat", "numpy"])
def test_every_format_can_be_read_back_exactly(
    form, exported, videos, sequential, tmp_path
):
    if form == "coco":
        pytest.importorskip("pycocotools", reason="needs the extra coco")
    images, out = videos / "one", tmp_path / "out"
    command = arguments(exported, images, out, "--no-overlay", "--format", form)
    assert main(command) == 0
    masks = sorted((sequential / "one" / "masks").iterdir())
    expected = [np.asarray(Image.open(path)) for path in masks]
    assert len(np.unique(expected)) > 1
    if form == "numpy":
        labels = []
        for index in range(FRAMES):
            with np.load(out / "masks" / f"f{index}.npz") as arrays:
                labels.append(arrays["labels"])
    else:
        more = ("--images", images, "--empty", "background")
        flags = ("--raw", out, "--out", tmp_path / "read", *more)
        assert convert([*map(str, flags)]) == 0
        source = open_folder(tmp_path / "read")
        assert [info.name for info in source.classes] == [*tiny_run.CLASSES]
        labels = [source.label(0, k) for k in range(FRAMES)]
    np.testing.assert_array_equal(labels, expected)


def test_videos_are_named_by_their_paths(tmp_path):
    for name in ("day1/a.mp4", "day1/b.avi", "day2/a.mp4", "day2/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in ("p/f1.tif", "p/f2.bmp", "p/f10.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 8)).save(tmp_path / name)

    def names(text):
        return [video.name for video in find_videos(str(tmp_path / text))]

    assert names("day*/*.mp4") == ["day1_a", "day2_a"]
    assert names("**/*.mp4") == ["day1_a", "day2_a"]
    assert names("day1") == ["a", "b"] and names("*") == ["p"]
    (tmp_path / "day1/a.avi").write_bytes(b"")
    assert names("day1") == ["a", "a.mp4", "b"]
    # The results folder may be among the videos.
    (tmp_path / "day1" / "out" / "a").mkdir(parents=True)
    (tmp_path / "day1" / "out" / "a" / "overlay.mp4").write_bytes(b"")
    videos = find_videos(str(tmp_path / "day1/**/*.mp4"), tmp_path / "day1" / "out")
    assert [video.name for video in videos] == ["a"]
    # Images are a single source, whether given by their folder or by a pattern.
    for text in ("p", "p/*.*"):
        assert not names(text)
        source = open_source(str(tmp_path / text))
        assert [captured.name for captured in source] == ["f1", "f2", "f10"]
    with pytest.raises(SourceError, match="matches no video and no folder"):
        names("day*/*.mkv")


def test_masks_next_to_the_frames_are_ignored(tmp_path, caplog):
    for name in ("f1.jpg", "f2.jpg", "f1_mask.png", "f2_mask.png"):
        Image.new("RGB", (9, 8)).save(tmp_path / name)
    names = [captured.name for captured in open_source(str(tmp_path))]
    assert names == ["f1", "f2"] and "2 of its pictures are masks" in caplog.text
    (tmp_path / "f2_mask.png").unlink()  # no mask for f2, so f1_mask may be a frame
    assert len(list(open_source(str(tmp_path)))) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--jobs", "0"], "--jobs is 0"),
        (["--mode", "live"], "--mode live is for one source"),
        (["--checkpoint", "nothing.xml"], "nothing.xml: cannot be read"),
    ],
)
def test_errors_are_one_line(more, message, exported, videos, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments(exported, videos, tmp_path / "out"), *more])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("module", "more", "extra"),
    [
        ("ray", ["--engine", "ray"], "[ray]"),
        ("pycocotools", ["--format", "coco"], "[coco]"),
    ],
)
def test_a_missing_extra_is_named(
    module, more, extra, exported, videos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit):
        main([*arguments(exported, videos, tmp_path / "out"), *more])
    error = capsys.readouterr().err
    assert "pip install" in error and extra in error and error.count("\n") == 1


def test_jobs_need_several_videos(exported, videos, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments(exported, videos / "one", tmp_path / "out", "--jobs", "2"))
    assert "is one video; --jobs and --engine" in capsys.readouterr().err


def test_ctrl_c_leaves_only_complete_videos(exported, videos, tmp_path, monkeypatch):
    from dmnet_jax.predict.worker import Worker

    original = Worker._run

    def interrupted(self, video, *arguments):
        if video.name == "two":
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, video, *arguments)

    monkeypatch.setattr(Worker, "_run", interrupted)
    command = arguments(exported, videos, tmp_path / "out", "--no-overlay")
    assert main(command) == 130
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["one", "ten"]


def test_count_frames():
    source, unknown = SimpleNamespace(length=5), SimpleNamespace()
    assert [count_frames(source, limit) for limit in (0, 3, 9)] == [5, 3, 5]
    assert [count_frames(unknown, limit) for limit in (0, 3)] == [None, 3]
    assert count_frames(SimpleNamespace(paths=("a", "b"))) == 2
