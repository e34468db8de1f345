"""Prediction of one source with a tiny network: files, labels and interruptions."""

import errno
import json
import os
import signal
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import Video
from data_pipelines.io.images import resize_image
from dmnet_jax import evaluation, streaming
from dmnet_jax.predict import formats
from dmnet_jax.predict import network as networks
from dmnet_jax.predict import run as prediction
from dmnet_jax.predict.__main__ import main
from dmnet_jax.streaming import TrainedRun
from dmnet_jax.streaming.program import Memories, Program
from dmnet_jax.video import capture, sources
from dmnet_jax.video.capture import Reconnecting
from dmnet_jax.video.sources import Captured, Rendered, SourceError, open_source
from tests.support import tiny_run

SIZE = (128, 128)
FRAMES = 12


@pytest.fixture(scope="module")
def trained():
    with tiny_run.shallow():
        model, variables = tiny_run.network()
        classes = [{"name": n, "color": [9, 9, 9]} for n in tiny_run.CLASSES]
        about = {"classes": classes, "val_videos": ["two"]}
        yield TrainedRun(model, variables, tiny_run.tiny_config(), about)


@pytest.fixture(autouse=True)
def one_network(trained, monkeypatch):
    def cached_program(model, variables, size, label_size):
        return tiny_run.program(label_size)

    monkeypatch.setattr(streaming, "load_run", lambda run, which, **_: trained)
    monkeypatch.setattr(networks, "compile", cached_program)


def frame(index):
    return tiny_run.picture(index % 8, SIZE, seed=index)[0]


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(FRAMES):
        Image.fromarray(frame(index)).save(images / f"{index}.png")
    return images


def predict(source, out, *more):
    return main(
        ["--checkpoint", "RUN", "--source", str(source), "--out", str(out), *more]
    )


def lines_of(out):
    return [
        json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()
    ]


class Evaluated:
    """The frames as a source for the evaluation."""

    classes = ()
    videos = (Video("video", tuple(str(i) for i in range(FRAMES))),)

    def image(self, video, index):
        return resize_image(frame(index), (64, 64))

    def label(self, video, index):
        return np.zeros(SIZE, np.uint8)


def test_offline_segments_every_frame_like_the_evaluation(
    trained, folder, tmp_path, capsys
):
    out = tmp_path / "out"
    assert predict(folder, out) == 0
    assert "12 frames" in capsys.readouterr().out
    lines = lines_of(out)
    assert [line["frame"] for line in lines] == [str(i) for i in range(FRAMES)]
    assert {line["status"] for line in lines} == {"ok"}
    different = 0
    for expected in evaluation.predict_video(*trained[:2], Evaluated(), 0):
        line = lines[expected.frame]
        mask = Image.open(out / "masks" / f"{expected.frame}.png")
        assert mask.mode == "P"
        label = np.asarray(mask)
        different += (label != expected.label).sum()
        assert line["confidence"] == pytest.approx(expected.confidence, rel=1e-3)
        assert line["admitted"] == expected.admitted
        pixels = {name: area["pixels"] for name, area in line["classes"].items()}
        assert sum(pixels.values()) == np.count_nonzero(label)
    assert different < 1e-3 * FRAMES * label.size
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames_written"] == summary["session"]["frames"] == FRAMES


def test_the_overlay_video_has_a_legend(folder, tmp_path):
    av = pytest.importorskip("av", reason='needs PyAV: pip install -e ".[video]"')
    predict(folder, tmp_path / "out")
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as video:
        frames = [image.to_ndarray(format="rgb24") for image in video.decode(video=0)]
    assert len(frames) == FRAMES and frames[0].shape[0] > SIZE[0]
    assert frames[0].shape[1] == SIZE[1]


def test_folders_do_not_need_pyav(folder, tmp_path, monkeypatch):
    from dmnet_jax.video import pyav as video

    def missing():
        raise SourceError("video needs PyAV")

    monkeypatch.setattr(video, "pyav", missing)
    assert predict(folder, tmp_path / "out", "--frames", "3") == 0
    assert len(list((tmp_path / "out" / "overlay").glob("*.png"))) == 3


def test_live_takes_the_latest_frame_and_counts_the_rest(folder, tmp_path, capsys):
    assert predict(folder, tmp_path / "out", "--mode", "live") == 0
    lines = lines_of(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["captured"] == FRAMES == len(lines) + summary["dropped"]
    assert all(0 < line["age_ms"] < 5000 for line in lines)
    assert summary["session"]["latency"]["deadline_ms"] == pytest.approx(40)
    assert "dropped" in capsys.readouterr().out


class Camera:
    """Yields a regular, a damaged and a black frame, then stays disconnected."""

    rate, live, opened = 25.0, True, 0

    def __iter__(self):
        self.opened += 1
        if self.opened > 2:
            raise SourceError("unplugged")
        yield Captured(frame(0), 0.0, "")
        yield Captured(frame(1), 0.0, "", damage="error while decoding")
        yield Captured(np.zeros_like(frame(0)), 0.0, "")


def test_unused_frames_have_no_mask_and_a_lost_camera_gives_status_1(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(prediction, "OFFLINE", prediction.LIVE)
    monkeypatch.setattr(sources, "open_source", lambda text: Camera())
    monkeypatch.setattr(
        capture,
        "Reconnecting",
        lambda source, attempts, *_: Reconnecting(source, attempts, lambda _: None),
    )
    out = tmp_path / "out"
    assert predict("0", out) == 1
    assert "gave up" in capsys.readouterr().err
    assert [line["status"] for line in lines_of(out)] == ["ok", "suspect", "blank"]
    assert [path.name for path in (out / "masks").iterdir()] == ["000000.png"]
    assert "unplugged" in json.loads((out / "summary.json").read_text())["lost"]


class Interrupted:
    """Yields frames endlessly and sends Ctrl-C while a frame is read."""

    rate, live = 25.0, False

    def __iter__(self):
        for index, captured in enumerate(Rendered(SIZE)):
            yield captured
            if index == 20:
                os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_complete_files(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sources, "open_source", lambda text: Interrupted())
    assert predict("synthetic", out) == 130
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames_written"] == len(lines_of(out)) > 0
    if (out / "overlay.mp4").exists():
        frames = list(open_source(str(out / "overlay.mp4")))
        assert len(frames) == summary["frames_written"]


def test_an_unreadable_image_is_reported_and_the_others_are_segmented(
    folder, tmp_path, capsys
):
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    (folder / "._4.png").write_bytes(b"metadata file of macOS")
    out = tmp_path / "out"
    assert predict(folder, out) == 0
    lines = lines_of(out)
    assert [line["status"] for line in lines].count("ok") == FRAMES - 1
    assert lines[3]["status"] == "suspect" and "3.png: damaged" in lines[3]["reason"]
    assert len(list((out / "masks").iterdir())) == FRAMES - 1
    assert "suspect 1" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["lost"] == ""


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1)])
def test_a_very_narrow_image_is_rejected(size, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("RGB", size[::-1]).save(tmp_path / "images" / "a.png")
    with pytest.raises(SystemExit) as stop:
        predict(tmp_path / "images", tmp_path / "out")
    err = capsys.readouterr().err
    assert stop.value.code == 2 and f"{size[1]}x{size[0]}" in err
    assert err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_frames_that_are_too_large_when_padded_are_rejected():
    with pytest.raises(ValueError, match="padded to the network's aspect"):
        networks.check_frames((16_000, 1_500), tiny_run.tiny_config().data.size)


def test_a_full_disk_is_reported_and_complete_files_are_kept(
    folder, tmp_path, monkeypatch, capsys
):
    save, out = formats.save_indexed_png, tmp_path / "out"

    def full(path, label, colors):
        if len(list((out / "masks").glob("*.png"))) > 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path, label, colors)

    monkeypatch.setattr(formats, "save_indexed_png", full)
    with pytest.raises(SystemExit) as stop:
        predict(folder, out)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    assert f"{out}: cannot be written (No space left on device)" in err
    names = sorted(path.name for path in (out / "masks").iterdir())
    assert names == ["0.png", "1.png", "2.png"] and len(lines_of(out)) == 3
    assert json.loads((out / "summary.json").read_text())["frames_written"] == 3


def test_the_memory_can_be_turned_off_except_in_an_exported_file(monkeypatch):
    calls = []

    def load(checkpoint, which, *, memory, scales):
        calls.append(memory)
        raise ValueError("called")

    monkeypatch.setattr("dmnet_jax.streaming.load_run", load)
    for memory in (True, False):
        with pytest.raises(ValueError, match="called"):
            networks.load_network("RUN", memory=memory)
    assert calls == [True, False]
    with pytest.raises(ValueError, match="model.onnx: an exported file always uses"):
        networks.load_network("model.onnx", memory=False)
    with pytest.raises(ValueError, match="model.onnx: an exported file has one input"):
        networks.load_network("model.onnx", scales=(1.5,))


@pytest.fixture
def fake_run(monkeypatch):
    """A run whose sessions are the input sizes that they were compiled for."""

    made = []

    def compile(*_, size, label_size):
        made.append(size)
        return SimpleNamespace(size=size)

    monkeypatch.setattr(networks, "compile", compile)
    monkeypatch.setattr(networks, "Session", lambda program: program.size)
    trained = SimpleNamespace(
        made=made,
        model=SimpleNamespace(memories=None),
        variables={"params": {"kernel": np.zeros(2, np.float32)}},
        about={"classes": []},
        config=SimpleNamespace(data=SimpleNamespace(size=(64, 96), dataset="folder")),
    )
    monkeypatch.setattr("dmnet_jax.streaming.load_run", lambda *_, **options: trained)
    return trained


def test_the_input_of_a_network_may_be_larger_than_in_training(fake_run, monkeypatch):
    for size, expected in ((None, (64, 96)), ((96, 160), (96, 160))):
        network = networks.load_network("RUN", size=size)
        assert network.size == network.session((96, 160)) == expected
    assert fake_run.made == [(64, 96), (96, 160)]
    monkeypatch.setattr(networks, "_exported", lambda _: network)
    assert networks.load_network("step.onnx", size=(96, 160)) is network
    with pytest.raises(ValueError, match="step.onnx: exported for frames of 96x160"):
        networks.load_network("step.onnx", size=(64, 96))
    with pytest.raises(ValueError, match="--size is 60 96; both sides"):
        networks.load_network("RUN", size=(60, 96))


def test_a_network_of_rendered_scenes_keeps_the_aspect_ratio_of_frames(fake_run):
    fake_run.config.data.dataset = "rendered"
    network = networks.load_network("RUN")
    frames = {(96, 160): (64, 96), (1080, 1920): (64, 128), (300, 30): (64, 64)}
    for size, expected in frames.items():
        assert network.input_size(size) == network.session(size) == expected
    with_size = networks.load_network("RUN", size=(64, 96))
    assert with_size.session((1080, 1920)) == (64, 96)


def test_a_network_without_memory_admits_no_frames(folder, tmp_path):
    program = tiny_run.program(SIZE)
    without = Program(
        program.interface,
        program.init_memory,
        program._call,
        memories=Memories(local=False, global_=False),
    )
    with mock.patch.object(networks, "compile", lambda *_, **options: without):
        assert predict(folder, tmp_path / "out", "--frames", "3") == 0
    lines = lines_of(tmp_path / "out")
    assert not any(line["admitted"] or line["similarity"] for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--source is missing"),
        (["--checkpoint", "RUN", "--source", "x.mp4"], "--out is missing"),
        (["--checkpoint", "RUN", "--source", "x.mp4", "--out", "new"], "no such file"),
        (["--checkpoint", "RUN", "--source", "x", "--out", "."], "not an empty folder"),
        (["--mode", "fast"], "invalid choice"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and message in error and "\n" not in error
