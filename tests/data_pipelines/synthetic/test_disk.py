"""Synthetic video on disk: the layout of the originals, resuming, identical bytes.

The contents of the frames are checked in test_render.py.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.synthetic import (
    ENDOVIS17_FOLDERS,
    ENDOVIS18_LABELS,
    ENDOVIS18_SEQUENCES,
    TYPES,
    endovis18_ids,
    make_scene,
    render_frame,
    tools_of_endovis17,
    tools_of_endovis18,
    write_endovis17,
    write_endovis18,
)
from data_pipelines.synthetic.__main__ import main

SIZE = (64, 80)
# round(1080 / 1024 * 64), round(1920 / 1280 * 80); round(28 / 1024 * 64), 320 / 16.
CANVAS, CORNER = (68, 120), (2, 20)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def contents(root: Path) -> dict[str, str]:
    """Returns the digest of every file in `root`, by relative path."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


# --- files: EndoVis17 ---------------------------------------------------------------


@pytest.fixture(scope="module")
def endovis17(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("endovis17") / "raw"
    write_endovis17(root, seed=1, frames=2, size=SIZE, threads=3)
    return root


def test_endovis17_has_exactly_the_original_names(endovis17: Path) -> None:
    expected = {"mappings.json", "instrument_type_mapping.json", "synthetic.json"}
    for k, folders in ENDOVIS17_FOLDERS.items():
        top = f"instrument_dataset_{k}"
        expected.add(f"{top}/camera_calibration.txt")
        kinds = ["left_frames", *(f"ground_truth/{name}" for name in folders)]
        expected |= {f"{top}/{kind}/frame00{t}.png" for kind in kinds for t in (0, 1)}
    assert set(contents(endovis17)) == expected
    parts = json.loads((endovis17 / "mappings.json").read_text())
    assert (parts["shaft"], parts["wrist"], parts["claspers"]) == (10, 20, 30)
    types = json.loads((endovis17 / "instrument_type_mapping.json").read_text())
    assert types == {name: number for number, name in enumerate(TYPES, 1)}


def test_endovis17_masks_and_border(endovis17: Path) -> None:
    inner = np.s_[CORNER[0] : CORNER[0] + 64, CORNER[1] : CORNER[1] + 80]
    border = np.ones(CANVAS, bool)
    border[inner] = False
    for k, folders in ENDOVIS17_FOLDERS.items():
        top = endovis17 / f"instrument_dataset_{k}"
        scene = make_scene(1, k, tools_of_endovis17(k), SIZE, 2.0)
        frame = render_frame(scene, 1)
        picture = read(top / "left_frames/frame001.png")
        assert picture.shape == (*CANVAS, 3) and picture[border].mean() < 10
        np.testing.assert_array_equal(picture[inner], frame.rgb)
        for name, part in zip(folders, frame.parts, strict=True):
            mask = read(top / "ground_truth" / name / "frame001.png")
            assert mask.shape == ((*CANVAS, 3) if k == 7 else CANVAS)
            mask = mask if mask.ndim == 2 else mask[..., 0]
            assert not mask[border].any()
            assert set(np.unique(mask)) <= {0, 10, 20, 30}
            np.testing.assert_array_equal(mask[inner], part)


def test_endovis17_full_size_is_1080x1920(tmp_path: Path) -> None:
    """The canvas and corner of the original are computed from the image size."""
    from data_pipelines.synthetic import endovis17 as module

    seen = {}

    def record(scene, frames, images, save, threads) -> None:
        seen.update(save.keywords, size=scene.size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_frames", record)
        patch.setattr(module, "make_scene", lambda *a: make_scene(0, 1, (), SIZE))
        write_endovis17(tmp_path, seed=0, sequences=(3,), frames=1)
    assert seen["canvas"] == (1080, 1920) and seen["corner"] == (28, 320)


def test_endovis17_tools_follow_the_folder_names() -> None:
    for k, folders in ENDOVIS17_FOLDERS.items():
        tools = tools_of_endovis17(k)
        assert len({tool.side for tool in tools}) == len(tools) == len(folders)
        for folder, tool in zip(folders, tools, strict=True):
            assert TYPES[tool.kind - 1].replace(" ", "_") in folder
            if "Left" in folder or "Right" in folder:
                assert tool.side.title() in folder


def test_files_do_not_depend_on_threads_or_interruption(tmp_path: Path) -> None:
    options = {"seed": 2, "sequences": (3,), "frames": 5, "size": SIZE}
    write_endovis17(tmp_path / "a", threads=1, **options)
    write_endovis17(tmp_path / "b", threads=4, **options)
    original = contents(tmp_path / "a")
    assert contents(tmp_path / "b") == original

    top = tmp_path / "b/instrument_dataset_3"
    (top / "left_frames/frame001.png").unlink()
    (top / "left_frames/frame004.png").unlink()
    (top / "ground_truth/Left_Large_Needle_Driver_labels/frame004.png").unlink()
    marker = tmp_path / "b/synthetic.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    modified = (top / "left_frames/frame000.png").stat().st_mtime_ns
    write_endovis17(tmp_path / "b", threads=2, **options)
    assert contents(tmp_path / "b") == original
    assert (top / "left_frames/frame000.png").stat().st_mtime_ns == modified


def test_a_finished_run_is_kept_and_another_one_refused(tmp_path: Path) -> None:
    options = {"sequences": (3,), "frames": 1, "size": SIZE}
    write_endovis17(tmp_path / "set", seed=2, **options)
    picture = tmp_path / "set/instrument_dataset_3/left_frames/frame000.png"
    picture.unlink()
    write_endovis17(tmp_path / "set", seed=2, **options)
    assert not picture.exists()
    with pytest.raises(ValueError, match="written with seed 2, not 3"):
        write_endovis17(tmp_path / "set", seed=3, **options)
    with pytest.raises(ValueError, match="written with layout endovis17"):
        write_endovis18(tmp_path / "set", seed=2, **options)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/photo.png").touch()
    with pytest.raises(ValueError, match="not empty"):
        write_endovis17(tmp_path / "other", seed=2, **options)
    (tmp_path / "set/synthetic.json").write_text("[1")
    with pytest.raises(ValueError, match="cannot be read"):
        write_endovis17(tmp_path / "set", seed=2, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequences": (9,)}, "sequence 9"),
        ({"sequences": 9}, "sequence 9"),
        ({"sequences": (1, 1)}, "only once"),
        ({"sequences": ()}, "pass one or more"),
        ({"frames": 0}, "frames 0"),
        ({"frames": 1001}, "frames 1001"),
        ({"threads": 0}, "threads 0"),
        ({"size": (8, 8)}, "size 8x8"),
        ({"size": (135, 240)}, "size 135x240: EndoVis17 needs height:width of 4:5"),
        ({"rate": float("nan")}, "rate nan"),
        ({"seed": 2**64}, "seed 18446744073709551616"),
    ],
)
def test_writer_errors_say_what_is_wrong(
    tmp_path: Path, changes: dict, message: str
) -> None:
    options = {"seed": 0, "sequences": (1,), "frames": 1, "size": SIZE, **changes}
    with pytest.raises(ValueError, match=message):
        write_endovis17(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


# --- files: EndoVis18 ---------------------------------------------------------------


def test_endovis18_layout_and_colors(tmp_path: Path) -> None:
    write_endovis18(tmp_path, seed=1, sequences=(2, 9), frames=3, size=SIZE)
    names = {
        f"seq_{k}/{kind}/frame00{t}.png"
        for k in (2, 9)
        for kind in ("left_frames", "labels")
        for t in range(3)
    }
    files = {f"seq_{k}/camera_calibration.txt" for k in (2, 9)}
    files |= {"labels.json", "synthetic.json"}
    assert set(contents(tmp_path)) == names | files
    entries = json.loads((tmp_path / "labels.json").read_text())
    assert [(e["name"], tuple(e["color"])) for e in entries] == list(ENDOVIS18_LABELS)
    assert [e["classid"] for e in entries] == list(range(12))
    for k, depth in ((2, 4), (9, 3)):
        label = read(tmp_path / f"seq_{k}/labels/frame002.png")
        picture = read(tmp_path / f"seq_{k}/left_frames/frame002.png")
        assert label.shape == (*SIZE, depth) and picture.shape == (*SIZE, 3)
        tools = tools_of_endovis18(k)
        scene = make_scene(1, 100 + k, tools, SIZE, 1.0, anatomy=True)
        frame = render_frame(scene, 2)
        np.testing.assert_array_equal(picture, frame.rgb)
        colors = np.array([color for _, color in ENDOVIS18_LABELS])
        np.testing.assert_array_equal(
            label[..., :3], colors[endovis18_ids(frame, tools)]
        )


def test_endovis18_shows_most_classes() -> None:
    seen = set()
    for k in (2, 4):
        tools = tools_of_endovis18(k)
        scene = make_scene(0, 100 + k, tools, (128, 160), 0.2, anatomy=True)
        for t in range(12):
            seen |= set(np.unique(endovis18_ids(render_frame(scene, t), tools)))
    names = {ENDOVIS18_LABELS[index][0] for index in seen}
    assert names == {name for name, _ in ENDOVIS18_LABELS} - {
        "clamps",
        "suction-instrument",
    }


def test_endovis18_has_no_sequence_8(tmp_path: Path) -> None:
    assert len(ENDOVIS18_SEQUENCES) == 15 and 8 not in ENDOVIS18_SEQUENCES
    with pytest.raises(ValueError, match="sequence 8"):
        write_endovis18(tmp_path / "set", seed=0, sequences=(8,), frames=1, size=SIZE)


# --- command line -------------------------------------------------------------------


def test_command_line_writes_the_same_files(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = "--layout endovis17 --sequences 3 --frames 2 --size 64x80 --seed 6"
    assert main(["--out", str(tmp_path / "a"), *words.split()]) == 0
    assert "instrument_dataset_3: 2 frames" in capsys.readouterr().out
    write_endovis17(tmp_path / "b", seed=6, sequences=(3,), frames=2, size=SIZE)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--size 64", "--size: 64: use HEIGHTxWIDTH"),
        ("--sequences 1;2", "--sequences 1;2"),
        ("--sequences 12", "sequence 12"),
        ("--frames 0", "frames 0"),
        ("--rate 0", "rate 0.0"),
    ],
)
def test_command_line_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        sys.exit(main(["--out", str(tmp_path / "set"), *words.split()]))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1
