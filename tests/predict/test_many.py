"""Several videos, other formats: the same files by every engine, also after a kill."""

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
from dmnet_jax.predict.worker import length_of
from dmnet_jax.streaming.artifact import write_artifact
from dmnet_jax.streaming.program import Interface
from dmnet_jax.video.sources import SourceError, open_source
from tests.support import tiny_run

NAMES = ("one", "two", "ten")
FRAMES = 4
LONG = 150
"""Frames of "two", so that it can be killed on the way."""


class Brightness(VideoSegmenter):
    """Classes by brightness against a running mean, so that labels need the memory."""

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
        over = light - mean[:, None, None]
        logits = jnp.stack([9 - jnp.abs(over - 20), over - 20, 20 - over], -1)
        return {"mean": mean}, Output(logits, mean, mean, mean > 0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network of a few operations as a file, which any process can open."""
    interface = Interface((64, 64), 1, 3, (64, 64))
    content, notes = export_step(Brightness(), {}, interface)
    notes |= {"classes": [{"name": n, "color": [9, 9, 9]} for n in tiny_run.CLASSES]}
    folder = tmp_path_factory.mktemp("exported")
    return write_artifact(folder, "model", {".jax": content}, interface, notes)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Folders of pictures, one of which holds them in frames/."""
    root = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate(NAMES):
        folder = root / name / "frames" if name == "two" else root / name
        folder.mkdir(parents=True)
        for index in range(LONG if name == "two" else FRAMES):
            image = tiny_run.picture(index % 8, (64, 80), seed=seed)[0]
            Image.fromarray(image).save(folder / f"f{index}.png")
    return root


def arguments(exported, source, out, *more):
    given = {"--checkpoint": exported, "--source": source, "--out": out}
    return [str(text) for pair in given.items() for text in pair] + [*map(str, more)]


@pytest.fixture(scope="module")
def plain(exported, videos, tmp_path_factory):
    """The results of an undisturbed run, one video after another."""
    out = tmp_path_factory.mktemp("plain") / "out"
    assert main(arguments(exported, videos, out, "--no-overlay")) == 0
    return out


def files_of(out):
    """What each file holds, without what a clock says."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name == "summary.json":
            found[name] = json.loads(path.read_text())
            for timed in ("wall_seconds", "frames_a_second"):
                del found[name][timed]
            del found[name]["session"]["latency"]
        elif path.name == "frames.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            found[name] = [{**line, "latency_ms": 0} for line in lines]
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_each_video_has_a_folder_as_if_it_were_alone(exported, videos, plain, tmp_path):
    assert sorted(path.name for path in plain.iterdir()) == sorted(NAMES)
    source = videos / "two" / "frames"
    assert main(arguments(exported, source, tmp_path / "out", "--no-overlay")) == 0
    alone, found = files_of(tmp_path / "out"), files_of(plain / "two")
    assert alone.keys() == found.keys() and len(alone) == LONG + 2
    for summary in (alone.pop("summary.json"), found.pop("summary.json")):
        assert summary["frames_written"] == LONG
    assert alone == found


def test_what_is_finished_is_left_and_must_have_been_asked_for_alike(
    exported, videos, plain, tmp_path, capsys
):
    command = arguments(exported, videos, tmp_path / "out", "--no-overlay")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "3/3" in said and "left" in said and "3 of 3 videos segmented" in said
    assert files_of(tmp_path / "out") == files_of(plain)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(command) == 0
    assert "3 of 3 videos are finished already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(SystemExit):
        main([*command, "--frames", "2"])
    assert "summary.json: was made with" in capsys.readouterr().err
    # Nor are videos made with two states of one checkpoint put side by side.
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
def test_ray_gives_the_same_files(exported, videos, plain, tmp_path):
    command = arguments(exported, videos, tmp_path / "out", "--no-overlay")
    done = run([*command, "--engine", "ray", "--jobs", "2"])
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "out") == files_of(plain)


def run(command):
    program = [sys.executable, "-m", "dmnet_jax.predict", *command]
    return subprocess.run(
        program, cwd=tiny_run.ROOT, capture_output=True, text=True, timeout=300
    )


def test_processes_that_are_killed_and_started_again_give_the_same_files(
    exported, videos, plain, tmp_path
):
    out = tmp_path / "out"
    command = arguments(exported, videos, out, "--no-overlay")
    program = [sys.executable, "-m", "dmnet_jax.predict", *command, "--jobs", "2"]
    killed = subprocess.Popen(program, cwd=tiny_run.ROOT)
    half = out / ".two.partial"
    until = time.monotonic() + 200
    while len(list(half.glob("masks/f*"))) < 2 and time.monotonic() < until:
        assert killed.poll() is None
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    while time.monotonic() < until:  # its processes end with it
        with folder_lock(half) as free:
            if free:
                break
        time.sleep(0.02)
    assert half.is_dir() and not (out / "two").exists()
    for name in ("one", "ten"):
        if (out / name).exists():
            assert files_of(out / name) == files_of(plain / name)
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("[a-z]*/summary.json")}
    assert main([*command, "--jobs", "2"]) == 0
    assert files_of(out) == files_of(plain)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_video_that_cannot_be_read_does_not_stop_the_others(
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
    # What was lost before its end is done again; what another command made is not.
    path = tmp_path / "out" / "whole" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({**summary, "lost": "cut short"}))
    assert main(command) == 1
    assert json.loads(path.read_text())["lost"] == ""
    path.write_text("{}")
    with pytest.raises(SystemExit):
        main(command)
    assert "whole: no result of this command" in capsys.readouterr().err


def test_a_video_that_another_process_has_is_left_to_it(
    exported, videos, plain, tmp_path, capsys
):
    out = tmp_path / "out"
    command = arguments(exported, videos, out, "--no-overlay")
    with folder_lock(out / ".one.partial"):
        assert main(command) == 0
    said = capsys.readouterr().out
    assert "one: skipped" in said and "2 of 3 videos segmented, 0 with errors" in said
    assert sorted(path.name for path in out.glob("[a-z]*")) == ["ten", "two"]
    assert main(command) == 0
    assert files_of(out) == files_of(plain)


@pytest.mark.parametrize("form", ["coco", "cvat", "numpy"])
def test_every_format_reads_back_as_the_same_masks(
    form, exported, videos, plain, tmp_path
):
    if form == "coco":
        pytest.importorskip("pycocotools", reason="needs the extra coco")
    pictures, out = videos / "one", tmp_path / "out"
    command = arguments(exported, pictures, out, "--no-overlay", "--format", form)
    assert main(command) == 0
    masks = sorted((plain / "one" / "masks").iterdir())
    wanted = [np.asarray(Image.open(path)) for path in masks]
    assert len(np.unique(wanted)) > 1
    if form == "numpy":
        found = []
        for index in range(FRAMES):
            with np.load(out / "masks" / f"f{index}.npz") as arrays:
                found.append(arrays["labels"])
    else:
        more = ("--images", pictures, "--empty", "background")
        given = ("--raw", out, "--out", tmp_path / "read", *more)
        assert convert([*map(str, given)]) == 0
        source = open_folder(tmp_path / "read")
        assert [info.name for info in source.classes] == [*tiny_run.CLASSES]
        found = [source.label(0, k) for k in range(FRAMES)]
    np.testing.assert_array_equal(found, wanted)


def test_patterns_and_folders_name_videos_by_their_places(tmp_path):
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
    # Results may lie among the videos.
    (tmp_path / "day1" / "out" / "a").mkdir(parents=True)
    (tmp_path / "day1" / "out" / "a" / "overlay.mp4").write_bytes(b"")
    found = find_videos(str(tmp_path / "day1/**/*.mp4"), tmp_path / "day1" / "out")
    assert [video.name for video in found] == ["a"]
    # Pictures are one source, whether their folder or a pattern names them.
    for text in ("p", "p/*.*"):
        assert not names(text)
        source = open_source(str(tmp_path / text))
        assert [captured.name for captured in source] == ["f1", "f2", "f10"]
    with pytest.raises(SourceError, match="no video and no folder"):
        names("day*/*.mkv")


def test_masks_beside_the_frames_are_no_frames(tmp_path, caplog):
    for name in ("f1.jpg", "f2.jpg", "f1_mask.png", "f2_mask.png"):
        Image.new("RGB", (9, 8)).save(tmp_path / name)
    found = [captured.name for captured in open_source(str(tmp_path))]
    assert found == ["f1", "f2"] and "2 of its pictures are masks" in caplog.text
    (tmp_path / "f2_mask.png").unlink()  # then it may be something else
    assert len(list(open_source(str(tmp_path)))) == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--jobs", "0"], "--jobs 0"),
        (["--mode", "live"], "--mode live is for one source"),
        (["--checkpoint", "nothing.xml"], "nothing.xml: cannot be read"),
    ],
)
def test_mistakes_are_one_line(more, told, exported, videos, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments(exported, videos, tmp_path / "out"), *more])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and told in error and error.count("\n") == 1
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


def test_jobs_are_for_several_videos(exported, videos, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments(exported, videos / "one", tmp_path / "out", "--jobs", "2"))
    assert "is one video; --jobs and --engine" in capsys.readouterr().err


def test_ctrl_c_leaves_whole_videos_alone(exported, videos, tmp_path, monkeypatch):
    from dmnet_jax.predict.worker import Worker

    written = Worker._written

    def interrupted(self, video, *arguments):
        if video.name == "two":
            os.kill(os.getpid(), signal.SIGINT)
        return written(self, video, *arguments)

    monkeypatch.setattr(Worker, "_written", interrupted)
    command = arguments(exported, videos, tmp_path / "out", "--no-overlay")
    assert main(command) == 130
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["one", "ten"]


def test_how_many_frames_are_to_come():
    source, unknown = SimpleNamespace(length=5), SimpleNamespace()
    assert [length_of(source, most) for most in (0, 3, 9)] == [5, 3, 5]
    assert [length_of(unknown, most) for most in (0, 3)] == [None, 3]
    assert length_of(SimpleNamespace(paths=("a", "b"))) == 2
