"""Random scenes vary, have exact labels, and their frames can be rendered alone."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.synthetic import render_frame
from data_pipelines.synthetic.laparoscopic import RIGID_TYPES, tip
from data_pipelines.synthetic.look import Look, develop, random_look
from data_pipelines.synthetic.variety import make_varied_scene

SIZE = (64, 80)


def scene(number: int, seed: int = 0):
    return make_varied_scene(seed, number, SIZE)


def test_a_scene_and_its_frames_are_functions_of_their_numbers() -> None:
    ahead = [render_frame(scene(3), frame) for frame in (5, 0)]
    again = [render_frame(scene(3), frame) for frame in (0, 5)][::-1]
    for one, other in zip(ahead, again, strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.parts, other.parts)
    assert (render_frame(scene(4), 5).rgb != ahead[0].rgb).any()
    assert (render_frame(scene(3, seed=1), 5).rgb != ahead[0].rgb).any()


def test_scenes_vary_like_real_video() -> None:
    scenes = [scene(number) for number in range(24)]
    assert {len(s.instruments) for s in scenes} >= {1, 2, 3}
    kinds = {i.tool.kind for s in scenes for i in s.instruments}
    assert any(kind < 8 for kind in kinds) and any(kind >= 8 for kind in kinds)
    widths = [i.arm.diameter for s in scenes for i in s.instruments]
    assert max(widths) > 2.5 * min(widths)
    looks = [s.look for s in scenes if s.look]
    assert any(look.view for look in looks) and not all(look.view for look in looks)
    levels = [render_frame(s, 0).rgb.mean() for s in scenes[:12]]
    assert max(levels) > 2 * min(levels)


def test_all_parts_are_labeled_over_a_few_scenes() -> None:
    seen = set()
    for number in range(8):
        seen |= set(np.unique(render_frame(scene(number), 0).parts))
    assert seen == {0, 10, 20, 30}


@pytest.mark.parametrize("kind", range(8, 8 + len(RIGID_TYPES)))
def test_every_rigid_tip_can_be_drawn(kind: int) -> None:
    sprite = tip(np.random.default_rng(0), kind, 12.0)
    assert np.asarray(sprite.color)[..., 3].max() == 255


def test_an_unknown_tip_is_an_error() -> None:
    with pytest.raises(ValueError, match="type 99: use a number from 8 to 15"):
        tip(np.random.default_rng(0), 99, 12.0)


def test_nothing_is_labeled_where_the_scene_is_not_visible() -> None:
    varied = next(s for s in map(scene, range(20)) if len(s.instruments) > 1)
    plain = dataclasses.replace(varied, look=Look())
    cut = dataclasses.replace(varied, look=Look(view=0.3, border=(0.1, 0.0, 0.1, 0.0)))
    frame = next(f for f in range(0, 200, 10) if render_frame(plain, f).parts.any())
    parts, inside = render_frame(plain, frame).parts, render_frame(cut, frame)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    radius = np.hypot((x + 0.5) / 64 - 80 / 128, (y + 0.5) / 64 - 0.5)
    seen = (radius < 0.3) & (y >= 6) & (x >= 6)
    np.testing.assert_array_equal(inside.parts, parts * seen)
    assert (inside.rgb[~seen] < 8).all()


def test_a_neutral_look_does_not_change_the_image() -> None:
    rgb = np.random.default_rng(0).uniform(0, 1, (3, *SIZE)).astype(np.float32)
    picture, seen = develop(Look(), rgb, (0, 0), 0, 0.0)
    assert seen.all()
    np.testing.assert_allclose(picture, rgb.transpose(1, 2, 0) * 255, atol=1.01)


def test_text_covers_the_scene() -> None:
    rgb = np.full((3, *SIZE), 0.3, np.float32)
    look = Look(text=(("REC", 0.1, 0.1, 0.3),))
    picture, seen = develop(look, rgb, (0, 0), 0, 0.0)
    assert 0 < (~seen).mean() < 0.3
    assert (picture[~seen] > 120).all()


def test_random_looks_are_finite_and_differ() -> None:
    rng = np.random.default_rng(0)
    rgb = np.full((3, *SIZE), 0.4, np.float32)
    means = set()
    for _ in range(12):
        picture, _ = develop(random_look(rng), rgb, (0, 0), 1, 2.0)
        assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
        means.add(float(picture.mean()))
    assert len(means) == 12


def test_noise_has_the_deviation_of_its_look() -> None:
    """Its fine and coarse parts add up, and channels share only the fine one."""
    rgb = np.full((3, 128, 160), 0.5, np.float32)
    picture, _ = develop(Look(noise=6.0), rgb, (0, 0), 3, 0.0)
    error = picture.astype(float) - 127
    assert abs(error.mean()) < 0.3
    expected = 6 * (0.8**2 + 0.5**2) ** 0.5
    np.testing.assert_allclose(error.std((0, 1)), expected, rtol=0.05)
    shared = np.corrcoef(error[..., 0].ravel(), error[..., 1].ravel())[0, 1]
    np.testing.assert_allclose(shared, 0.8**2 / (0.8**2 + 0.5**2), atol=0.05)
