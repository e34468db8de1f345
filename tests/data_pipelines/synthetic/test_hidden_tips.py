"""Video with hidden tips: what the labels say, and what a frame can show."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import cache_frames
from data_pipelines.sources.folder import open_folder
from data_pipelines.synthetic import hidden_tips
from data_pipelines.synthetic.__main__ import main
from data_pipelines.synthetic.hidden_tips import (
    KINDS,
    NOT_SCORED,
    VISIBLE,
    evidence,
    make_hidden_tips_scene,
)
from data_pipelines.synthetic.instruments import SHAFT, Tool, make_instrument
from data_pipelines.synthetic.render import render_frame


def test_evidence_counts_frames_since_the_tip_was_visible():
    # Usual area 100; one instrument that is first half hidden.
    areas = np.array([30, 100, 60, 40, 5, 0, 0, 100, 4])[:, None]
    expected = [0, 1, 1, 0, 1 + 2, 1 + 3, 1 + 4, 1, 1 + 1]
    assert evidence(areas)[:, 0].tolist() == expected


def test_tips_that_were_never_visible_are_not_scored():
    areas = np.array([[0, 0], [0, 50], [0, 0]])
    assert evidence(areas).tolist() == [
        [NOT_SCORED, NOT_SCORED],
        [NOT_SCORED, VISIBLE],
        [NOT_SCORED, VISIBLE + 1],
    ]


def test_a_long_time_does_not_overflow():
    areas = np.zeros((400, 1), int)
    areas[0] = areas[360:] = 100
    assert evidence(areas)[359, 0] == 255


def test_a_bare_shaft_does_not_tell_the_type():
    """With its tip hidden, an instrument looks the same whatever its type."""
    size = (64, 80)
    scene = make_hidden_tips_scene(3, 7, size)
    frames = []
    for kind in KINDS:
        tools = tuple(Tool(kind, tool.tool.side) for tool in scene.instruments)
        instruments = tuple(
            replace(
                hidden_tips.hide_tip(
                    make_instrument(3, 7, index, tools, size), np.random.default_rng(0)
                ),
                arm=scene.instruments[index].arm,
            )
            for index in range(len(tools))
        )
        changed = replace(scene, instruments=instruments)
        frames.append([render_frame(changed, k) for k in range(0, 48, 4)])
    compared = 0
    for same in zip(*frames, strict=True):
        if any((f.parts > SHAFT).any() or not f.parts.any() for f in same):
            continue
        compared += 1
        for frame in same[1:]:
            assert np.array_equal(frame.parts, same[0].parts)
            # Not exactly equal, because a covered tip still casts a shadow.
            assert (
                np.abs(frame.rgb.astype(int) - same[0].rgb)[frame.parts.any(0)].max()
                < 40
            )
    assert compared


def test_the_paint_of_a_tip_tells_the_type():
    for kind, paint in zip(KINDS, hidden_tips.PAINTS, strict=True):
        plain = make_instrument(0, 0, 0, (Tool(kind),), (64, 80))
        painted = hidden_tips.hide_tip(plain, np.random.default_rng(0))
        assert painted.parts[0] is plain.parts[0]
        for part in painted.parts[1:]:
            color = np.asarray(part.color)
            mean = color[color[..., 3] > 128, :3].mean(0)
            np.testing.assert_allclose(
                mean / mean.max(), np.array(paint) / max(paint), atol=0.02
            )


def test_types_sides_and_counts_vary_between_videos():
    scenes = [make_hidden_tips_scene(0, k, (32, 40)) for k in range(30)]
    kinds = {i.tool.kind for scene in scenes for i in scene.instruments}
    assert kinds == set(KINDS)
    assert {i.tool.side for scene in scenes for i in scene.instruments} == {
        *hidden_tips.SIDES
    }
    assert {len(scene.instruments) for scene in scenes} == {1, 2}


def test_the_command_writes_a_folder_that_trains(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--layout", "hidden-tips", "--out", str(out), "--size", "32x40"]
    flags += ["--sequences", "0,7", "--frames", "12"]
    assert main(flags) == 0
    source = cache_frames(open_folder(out))
    assert [video.name for video in source.videos] == ["video000", "video007"]
    assert len(source.classes) == 1 + len(KINDS)
    known = [
        np.asarray(Image.open(path)) for path in sorted(out.glob("*/evidence/*.png"))
    ]
    labels = [source.label(v, f) for v in range(2) for f in range(12)]
    assert len(known) == len(labels) == 24
    for value, label in zip(known, labels, strict=True):
        assert not (value[label == 0] != NOT_SCORED).any()
    assert any((value == VISIBLE).any() for value in known)
    # A removed frame is written again, with the same bytes; others are not touched.
    last = out / "video007" / "frames" / "frame011.png"
    before = last.read_bytes()
    last.unlink()
    marker = out / "synthetic.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    assert main(flags) == 0 and last.read_bytes() == before
    capsys.readouterr()


def test_a_set_with_other_paints_is_not_taken_for_complete(tmp_path, monkeypatch):
    write = partial(
        hidden_tips.write_hidden_tips,
        tmp_path / "out",
        seed=0,
        sequences=[0],
        frames=2,
        size=(32, 40),
    )
    write()
    write()
    monkeypatch.setattr(hidden_tips, "PAINTS", hidden_tips.PAINTS[::-1])
    with pytest.raises(ValueError, match="out"):
        write()


@pytest.mark.parametrize("sequences", ["1000", "0,0"])
def test_invalid_numbers_are_one_error(tmp_path, sequences, capsys):
    flags = ["--layout", "hidden-tips", "--out", str(tmp_path / "out")]
    assert main([*flags, "--sequences", sequences]) == 2
    assert "sequences" in capsys.readouterr().err
