"""Synthetic video is reproducible and has the intended difficulties; small frames."""

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.synthetic import (
    JAWS,
    SHAFT,
    WRIST,
    Tool,
    endless,
    make_scene,
    render_frame,
    tools_of_endovis17,
)
from data_pipelines.synthetic.fields import (
    fractal,
    generator,
    make_episodes,
    make_track,
)

SIZE = (64, 80)
PAIR = (Tool(2, "left"), Tool(3, "right"))


def dilate(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilates a mask by `pixels` in each direction."""
    padded = np.pad(mask, pixels)
    reach = range(2 * pixels + 1)
    return np.logical_or.reduce(
        [
            padded[i : i + mask.shape[0], j : j + mask.shape[1]]
            for i, j in itertools.product(reach, reach)
        ]
    )


@pytest.fixture(scope="module")
def long_parts() -> dict[int, np.ndarray]:
    """Part masks [frames, instruments, H, W] of two sequences, 80 seconds each."""
    return {
        k: np.stack([render_frame(scene, t).parts for t in range(80)])
        for k in (1, 5)
        for scene in [make_scene(0, k, tools_of_endovis17(k), SIZE, rate=1.0)]
    }


# --- frames -----------------------------------------------------------------------


def test_a_frame_does_not_depend_on_the_frames_before() -> None:
    scene = make_scene(3, 1, PAIR, SIZE)
    in_order = [render_frame(scene, t) for t in range(6)]
    alone = render_frame(make_scene(3, 1, PAIR, SIZE), 5)
    np.testing.assert_array_equal(alone.rgb, in_order[5].rgb)
    np.testing.assert_array_equal(alone.parts, in_order[5].parts)
    np.testing.assert_array_equal(alone.regions, in_order[5].regions)
    assert not np.array_equal(in_order[0].rgb, in_order[1].rgb)


def test_bytes_are_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from data_pipelines.synthetic import *;"
        "s = make_scene(5, 2, (Tool(2, 'left'), Tool(3, 'right')), (64, 80));"
        "print(hashlib.sha256(render_frame(s, 7).rgb.tobytes()).hexdigest())"
    )
    root = Path(__file__).parents[3]
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True
    )
    here = render_frame(make_scene(5, 2, PAIR, SIZE), 7).rgb
    digest = hashlib.sha256(here.tobytes()).hexdigest()
    assert there.stdout.decode().strip() == digest


def test_seed_sequence_and_frame_change_the_image() -> None:
    frames = [
        render_frame(make_scene(seed, k, PAIR, SIZE), t).rgb.astype(int)
        for seed, k, t in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 9))
    ]
    for a, b in itertools.combinations(frames, 2):
        assert np.abs(a - b).mean() > 4


def test_scene_does_not_depend_on_the_picture_size() -> None:
    def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
        rgb = render_frame(make_scene(seed, 1, PAIR, size), 4).rgb
        small = Image.fromarray(rgb).resize((20, 16), Image.Resampling.BOX)
        return np.asarray(small, float)

    small, large = picture(0, (64, 80)), picture(0, (192, 240))
    other = picture(1, (192, 240))
    assert np.abs(small - large).mean() < 0.5 * np.abs(small - other).mean()
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.85


def test_frames_look_like_flesh() -> None:
    """Frames are well exposed, mostly red, and textured."""
    for k in range(1, 7):
        rgb = render_frame(make_scene(0, k, (), SIZE), 0).rgb.astype(float)
        red, green, blue = rgb.mean((0, 1))
        assert 60 < red < 235 and red > 1.15 * max(green, blue)
        assert (rgb.min(-1) > 250).mean() < 0.1
        assert rgb.std((0, 1)).min() > 8


def test_endless_is_reproducible() -> None:
    first = list(itertools.islice(endless(4, SIZE), 5))
    again = list(itertools.islice(endless(4, SIZE), 5))
    np.testing.assert_array_equal(first, again)
    assert first[0].shape == (*SIZE, 3) and first[0].dtype == np.uint8
    # At 25 frames per second, consecutive frames differ slightly.
    assert 0 < np.abs(np.subtract(first[0], first[1], dtype=int)).mean() < 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (16, 80)}, "size 16x80"),
        ({"size": (64, 200)}, "size 64x200"),
        ({"rate": 0.0}, "rate 0.0"),
        ({"seed": -1}, "seed -1"),
        ({"tools": (Tool(8, "left"),)}, "type 8"),
        ({"tools": (Tool(1, "middle"),)}, "'middle'"),
    ],
)
def test_scene_errors_name_the_argument(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scene(**{"seed": 0, "sequence": 1, "tools": PAIR, "size": SIZE, **changes})


def test_negative_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="frame -1"):
        render_frame(make_scene(0, 1, (), SIZE), -1)


# --- what the instruments do --------------------------------------------------------


def test_every_instrument_shows_all_its_parts(long_parts: dict) -> None:
    for parts in long_parts.values():
        for instrument in parts.swapaxes(0, 1):
            assert set(np.unique(instrument)) == {0, SHAFT, WRIST, JAWS}


def test_instruments_leave_and_return(long_parts: dict) -> None:
    for parts in long_parts.values():
        present = parts.any((2, 3))
        for seen in present.T:
            gone = np.flatnonzero(~seen)
            assert gone.size and seen[: gone[0]].any() | seen[gone[0] :].any()
            edges = np.diff(seen.astype(int))
            assert (edges == 1).any() and (edges == -1).any()


def test_jaws_are_hidden_at_times_while_the_shaft_shows(long_parts: dict) -> None:
    for parts in long_parts.values():
        shaft = (parts == SHAFT).sum((2, 3)) > 30
        jaws = (parts == JAWS).any((2, 3))
        assert 0.03 < (shaft & ~jaws).sum() / shaft.sum() < 0.5


def test_a_pixel_belongs_to_one_instrument(long_parts: dict) -> None:
    for parts in long_parts.values():
        assert ((parts > 0).sum(1) <= 1).all()


def test_instruments_hide_one_another() -> None:
    alone = make_scene(0, 1, PAIR[:1], SIZE, rate=1.0)
    both = make_scene(0, 1, PAIR, SIZE, rate=1.0)
    lost = taken = 0
    for t in range(60):
        one = render_frame(alone, t).parts[0] > 0
        first, second = render_frame(both, t).parts > 0
        assert not (first & ~one).any()
        lost += (one & ~first).sum()
        taken += (one & ~first & second).sum()
    assert lost == taken > 50


def test_parts_of_an_instrument_are_adjacent() -> None:
    scene = make_scene(0, 3, (Tool(3, "left"),), (128, 160), rate=1.0)
    adjoining = []
    for t in range(30):
        (part,) = render_frame(scene, t).parts
        for a, b in ((SHAFT, WRIST), (WRIST, JAWS)):
            if (part == a).sum() > 60 and (part == b).sum() > 60:
                adjoining.append((dilate(part == a, 2) & (part == b)).any())
    # Sometimes tissue covers only the joint.
    assert len(adjoining) > 20 and np.mean(adjoining) > 0.9


def test_the_type_is_visible_only_in_the_jaws() -> None:
    scenes = [
        make_scene(0, 1, (Tool(kind, "left"),), SIZE, rate=1.0) for kind in range(1, 8)
    ]
    parts = [scene.instruments[0].parts for scene in scenes]
    for other in parts[1:]:
        for mine, its in zip(parts[0][:3], other[:3], strict=True):
            assert mine.color.tobytes() == its.color.tobytes()
            assert mine.relief.tobytes() == its.relief.tobytes()
    for a, b in itertools.combinations(parts, 2):
        shapes = [np.asarray(p[3].color)[..., 3] > 127 for p in (a, b)]
        overlap = (shapes[0] & shapes[1]).sum() / (shapes[0] | shapes[1]).sum()
        assert overlap < 0.9
    colors = []
    for scene in scenes:
        frames = [render_frame(scene, t) for t in range(0, 40, 5)]
        pixels = np.concatenate([f.rgb[f.parts[0] == SHAFT] for f in frames])
        colors.append([*pixels.mean(0), *pixels.std(0)])
    np.testing.assert_allclose(colors, [colors[0]] * 7, atol=2.5)


# --- fields and clocks --------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), seconds=st.floats(0, 1e5))
def test_clocks_are_bounded_and_smooth(seed: int, seconds: float) -> None:
    track = make_track(generator(seed, 1), 3, period=2.0)
    episodes = make_episodes(generator(seed, 2), period=12.0, share=0.25, ramp=1.0)
    a, b = track.at(seconds), track.at(seconds + 0.01)
    assert np.abs(a).max() <= 1.6 and np.abs(a - b).max() < 0.04
    c, d = episodes.at(seconds), episodes.at(seconds + 0.01)
    assert 0 <= c <= 1 and abs(c - d) < 0.02


def test_episodes_last_their_share() -> None:
    episodes = make_episodes(generator(0, 1), period=10.0, share=0.3, ramp=1.0)
    values = [episodes.at(t) for t in np.arange(0, 1000, 0.1)]
    # The mean of a ramp is one half: 0.3 + 2 * 0.5 * 1 / 10.
    assert abs(np.mean(values) - 0.4) < 0.01


@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_noise_is_normalized_at_every_density(stretch: float) -> None:
    for density in (40, 160):
        rng = generator(0, 1)
        field = fractal(rng, (4.0, 4.0), density, 0.2, 4, stretch=stretch)
        assert field.shape == (4 * density, 4 * density)
        assert abs(field.mean()) < 0.15 and 0.7 < field.std() < 1.3
