"""The examples run and give the results that they describe."""

import importlib.util
from dataclasses import replace
from types import ModuleType

import jax
import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_run import ROOT, write_videos
from tests.support.toy import use_toy_networks

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def compile_quickly():
    """Compilation dominates the run time of these tests."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_short_and_tested_here():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {
        "key_frames",
        "memory_at_work",
        "retrieval_memory_nnx",
        "segment_video",
        "train_on_your_folder",
    }
    for name in names:
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80, name


def test_key_frames_are_new_views_only(tmp_path):
    example = load("key_frames")
    frames = example.main()
    # From frame 30 on, the camera waits and then passes the same street again.
    assert 2 < len(frames) <= example.CAPACITY
    assert frames[0] == 0 and max(frames) < 30
    for number, frame in enumerate(example.draw_street()[:3]):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    assert example.main(str(tmp_path)) == [0, 2]


def test_key_frames_needs_images(tmp_path):
    with pytest.raises(SystemExit, match="contains no"):
        load("key_frames").main(str(tmp_path))


def test_retrieval_memory_learns_from_single_examples():
    first, last = load("retrieval_memory_nnx").main()
    assert last > 0.9 and last > first


def test_memory_at_work_differs_from_the_single_frame_once_it_is_disturbed(tmp_path):
    out = tmp_path / "out.webp"
    images = load("memory_at_work").main(
        str(out), "black", size=(128, 160), first=0, length=2
    )
    with Image.open(out) as animation:
        assert animation.n_frames > 1
    sides = [np.split(image, 2, axis=1) for image in images]
    # The memory is empty in the first frame; a black frame alone shows no instruments.
    assert (sides[0][0] == sides[0][1]).all()
    alone, with_memory = sides[2]
    assert not alone.any() and with_memory.any()


def test_segment_video_marks_instruments(tmp_path):
    statuses = load("segment_video").main(
        out=str(tmp_path / "out"), frames=3, size=(64, 96)
    )
    assert statuses == {"ok": 3}
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [f"{i:06}.png" for i in range(3)]
    original = next(iter(load("segment_video").open_source("synthetic"))).image
    marked = np.asarray(Image.open(files[0]))
    assert marked.shape == original.shape
    assert (marked != original).any(-1).mean() > 0.02


def test_train_on_your_folder_trains(tmp_path):
    example = load("train_on_your_folder")
    root = write_videos(tmp_path / "videos")
    config = example.make_config(str(root), 3, ["one", "two"])
    assert config.model.pretrained == "rendered"
    config = replace(
        config,
        workdir=str(tmp_path / "runs"),
        data=replace(config.data, size=(64, 64)),
        # The shipped weights are not for the toy network.
        model=replace(config.model, pretrained="none", state=False),
        train=replace(config.train, stages=(), epochs=1, eval_every_epochs=1),
        optim=replace(config.optim, drop_epochs=()),
    )
    with use_toy_networks():
        run = example.run(config)
    assert run == tmp_path / "runs" / "mine" / "fold0-seed0"
    assert (run / "results.json").is_file() and any((run / "checkpoints").iterdir())
