"""The calibration data of a step, and processors with fast int8."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmnet_jax.config import DataConfig
from dmnet_jax.export import calibration
from dmnet_jax.streaming import processor
from dmnet_jax.streaming.described import Description, Tensor
from dmnet_jax.streaming.program import Interface, Program
from tests.support import tiny_run

SIZE = (64, 64)


def test_calibration_inputs_come_from_the_running_stream(monkeypatch):
    monkeypatch.setattr(calibration, "STEPS", 8)
    monkeypatch.setattr(calibration, "SAMPLES", 4)
    about = plain_description()
    frames_shown = []

    def step(memory, frames, active, reset) -> Any:
        frames_shown.append(int(frames[0, 0, 0, 0]))
        return (memory[0] + 1,), None

    program = Program(about.interface, lambda key: (np.zeros(1),), step)
    clips = [
        calibration.Clip(n, lambda n=n: (np.full((*SIZE, 3), k) for k in range(n)))
        for n in (10, 5)
    ]
    inputs = calibration.Rolled(program, about, calibration.Calibration(clips, ""))
    actual = [(int(x["frames"][0, 0, 0, 0]), float(x["memory.n"][0])) for x in inputs]
    # Every second frame is run, and every second of those is an input.
    assert frames_shown == [0, 2, 4, 6, 8, 0, 2, 4]
    assert actual == [(0, 0), (4, 2), (8, 4), (2, 1)] and len(inputs) == len(actual)


def plain_description():
    memory = (Tensor(".n", (1,), "float32"),)
    inputs = (Tensor("memory.n", (1,), "float32"), Tensor("frames", (1,), "uint8"))
    return Description(Interface(SIZE, 1, 3, SIZE), memory, inputs, (), "fp32")


def test_calibrates_on_a_folder_of_images_or_videos(tmp_path):
    tiny_run.write_videos(tmp_path / "videos", frames=3)
    (tmp_path / "videos" / ".hidden").mkdir()
    (tmp_path / "videos" / "empty").mkdir()
    size = (32, 64)
    result = calibration.of_folder(str(tmp_path / "videos"), size)
    assert [clip.length for clip in result.clips] == [3, 3] and result.about == "videos"
    frame = next(result.clips[0].frames())
    # Letterboxed as in a session: the padding is black.
    assert frame.shape == (*size, 3) and frame.dtype == np.uint8
    assert frame[:, :32].any() and not frame[:, 33:].any()
    one = calibration.of_folder(str(tmp_path / "videos" / "one" / "frames"), size)
    assert [clip.length for clip in one.clips] == [3] and one.about == "one"
    with pytest.raises(ValueError, match="contains no .jpg, .jpeg, .png"):
        calibration.of_folder(str(tmp_path / "videos" / "empty"), size)


@pytest.mark.parametrize(
    ("lengths", "count", "expected"),
    [
        ((5, 4), 3, [0, 4, 8]),
        ((9,), 9, list(range(9))),
        ((1, 1), 4, [0, 0, 1, 1]),
        ((1,), 2, [0, 0]),
    ],
)
def test_frames_are_spread_over_all_videos(lengths, count, expected):
    clips, first = [], 0
    for length in lengths:
        numbers = range(first, first + length)
        images = [np.full((*SIZE, 3), k, np.uint8) for k in numbers]
        clips.append(calibration.Clip(length, lambda images=images: iter(images)))
        first += length
    frames = calibration.spread_frames(calibration.Calibration(clips, ""), count)
    assert frames.shape == (count, *SIZE, 3)
    assert frames[:, 0, 0, 0].tolist() == expected


def test_rendered_networks_are_calibrated_on_many_scenes():
    """Inputs are from every scene, at all numbers of frames since its start."""
    data = DataConfig(dataset="rendered", size=SIZE)
    result = calibration.of_training(data, ["scene0", "scene1"], SIZE)
    firsts = [next(clip.frames()) for clip in result.clips[:4]]
    assert all(frame.shape == (*SIZE, 3) for frame in firsts)
    assert len({frame.tobytes() for frame in firsts}) == 4
    assert result.about == "40 rendered scenes"
    about = plain_description()
    program = Program(
        about.interface,
        lambda key: (np.zeros(1),),
        lambda memory, *inputs: ((memory[0] + 1,), None),
    )
    blank = np.zeros((*SIZE, 3), np.uint8)
    clips = [
        calibration.Clip(clip.length, lambda n=clip.length: iter([blank] * n))
        for clip in result.clips
    ]
    inputs = calibration.Rolled(program, about, calibration.Calibration(clips, ""))
    ages = [int(x["memory.n"][0]) for x in inputs]
    assert len(ages) == calibration.SAMPLES and {*ages} == set(range(6))


def test_damaged_images_are_not_used_for_calibration(tmp_path):
    Image.fromarray(tiny_run.picture(0)[0]).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (clip,) = calibration.of_folder(str(tmp_path), SIZE).clips
    assert clip.length == 1 == len(list(clip.frames()))


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("flags\t: fpu avx2 avx512f", False),
        ("flags\t: fpu avx512f avx512_vnni", True),
        ("flags\t\t: fpu avx_vnni", True),
        ("Features\t: fp asimd asimddp", True),
        ("Features\t: fp asimd", False),
        ("nothing: of this", True),
    ],
)
def test_detects_processors_with_int8_instructions(tmp_path, monkeypatch, text, fast):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{text}\n")
    monkeypatch.setattr(processor, "_CPUINFO", path)
    processor.computes_int8.cache_clear()
    assert processor.computes_int8() == fast
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")
    processor.computes_int8.cache_clear()
    assert processor.computes_int8()
    processor.computes_int8.cache_clear()
