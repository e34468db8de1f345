"""All errors in raw data are in one report, and no files are left."""

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.prepare.__main__ import main
from data_pipelines.synthetic import write_endovis17, write_endovis18
from tests.support.tiny_run import write_videos

SMALL = {"seed": 1, "frames": 7, "size": (64, 80), "threads": 1}
# The folders of frames and of masks, by layout.
FOLDERS = {
    "endovis17": (
        "instrument_dataset_3/left_frames",
        "instrument_dataset_3/ground_truth/Left_Large_Needle_Driver_labels",
    ),
    "endovis17 test": (
        "instrument_dataset_9/left_frames",
        "instrument_dataset_9/gt/PartsSegmentation",
    ),
    "endovis18": ("seq_1/left_frames", "seq_1/labels"),
    "folder": ("a/frames", "a/masks"),
    "endovis15": ("a/frames", "a/parts"),
    "camvid": ("train/frames", "train/masks"),
}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write(layout, root):
    """Writes frames 000 to 006 and their masks."""
    images, masks = (root / name for name in FOLDERS[layout])
    if layout == "endovis17":
        return write_endovis17(root, sequences=(3,), **SMALL)
    if layout == "endovis18":
        return write_endovis18(root, sequences=(1,), **SMALL)
    rng = np.random.default_rng(0)
    for frame in range(7):
        name = name_of(layout, frame)
        save(images / name, rng.integers(0, 256, (64, 80, 3), dtype=np.uint8))
        save(masks / name, np.zeros((64, 80), np.uint8))
    if layout == "folder":
        classes = '[{"name": "background"}, {"name": "grasper"}]'
        (root / "classes.json").write_text(classes)


def name_of(layout, frame, digits=3):
    start = "0001TP_" if layout == "camvid" else "frame"
    return f"{start}{frame:0{digits}d}.png"


@pytest.mark.parametrize("layout", FOLDERS)
def test_all_faults_of_a_tree_are_in_one_report(layout, tmp_path, capsys):
    root = tmp_path / "raw"
    write(layout, root)
    images, masks = (root / name for name in FOLDERS[layout])
    frames = [name_of(layout, number) for number in range(7)]
    size = np.array(Image.open(images / frames[0])).shape
    mask = np.array(Image.open(masks / frames[1]))

    (masks / frames[0]).unlink()
    save(images / name_of(layout, 9), np.zeros(size, np.uint8))
    save(images / frames[1], np.zeros((50, 80, 3), np.uint8))
    for folder, array in ((images, np.zeros(size, np.uint8)), (masks, mask * 0)):
        save(folder / name_of(layout, 2, digits=1), array)
    save(masks / frames[3], np.zeros((40, 40, *mask.shape[2:]), np.uint8))
    mask = np.zeros((*mask.shape[:2], 3), np.uint8)
    mask[31, 41] = 1, 2, 3
    save(masks / frames[4], mask)
    for file in (images / frames[5], masks / frames[6]):
        file.write_bytes(file.read_bytes()[:-30])

    dataset, _, subset = layout.partition(" ")
    command = ["--dataset", dataset, "--raw", str(root), "--out", f"{tmp_path}/out"]
    if "endovis17" in layout:
        command += ["--task", "parts", "--subset", subset or "train"]
    assert main(command) == 2
    report = capsys.readouterr().err
    assert report.startswith("error: ")
    for part in (
        rf"{frames[0]}: frame without a mask",
        rf"{name_of(layout, 9)}: frame without a mask",
        rf"{images / frames[1]}: .*80x50",
        rf"{images}/{name_of(layout, 2, digits=1)}: same frame number",
        rf"{masks / frames[3]}: .*40x40",
        rf"{masks / frames[4]}: color \(1, 2, 3\) at row 31, column 41",
        rf"{images / frames[5]}: damaged or truncated",
        rf"{masks / frames[6]}: damaged or truncated",
    ):
        assert re.search(part, report), f"{part}\n{report}"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("layout", "value"),
    [
        ("endovis17", 90),
        ("endovis17 test", 10),
        ("folder", 2),
        ("endovis15", 3),
        ("camvid", 12),
    ],
)
def test_unknown_values_are_reported_in_a_valid_tree_and_an_invalid_one(
    layout, value, tmp_path, capsys
):
    root = tmp_path / "raw"
    write(layout, root)
    images, masks = (root / name for name in FOLDERS[layout])
    path = masks / name_of(layout, 1)
    mask = np.array(Image.open(path))
    mask[31, 41] = value
    save(path, mask)
    truncated = images / name_of(layout, 4)
    truncated.write_bytes(truncated.read_bytes()[:-30])
    dataset, _, subset = layout.partition(" ")
    command = ["--dataset", dataset, "--raw", str(root), "--out", f"{tmp_path}/out"]
    if "endovis17" in layout:
        command += ["--task", "parts", "--subset", subset or "train"]
    for invalid in (False, True):
        if invalid:
            (masks / name_of(layout, 0)).unlink()
        assert main(command) == 2
        report = capsys.readouterr().err
        assert f"{path}: mask value {value} at row 31, column 41" in report
        assert f"{truncated}: damaged or truncated" in report
        assert ("frame000" in report or "0001TP_000" in report) == invalid
        assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_faults_of_archives_and_of_their_files_are_in_one_report(tmp_path, capsys):
    tree, archives = tmp_path / "tree", tmp_path / "in"
    write("endovis18", tree)
    archives.mkdir()
    (tree / "seq_1/labels/frame003.png").unlink()
    with zipfile.ZipFile(archives / "good.zip", "w") as archive:
        for path in sorted(tree.rglob("*.png")):
            archive.write(path, path.relative_to(tree))
    with zipfile.ZipFile(archives / "hostile.zip", "w") as archive:
        archive.writestr("../../escaped.png", b"x")
        archive.writestr("/tmp/absolute.png", b"x")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(archives / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(4_000_000))
    (archives / "no.zip").write_bytes(b"PK")
    before = sorted(Path(tmp_path).rglob("*"))
    command = ["--dataset", "endovis18", "--raw", str(archives)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    report = capsys.readouterr().err
    for part in (
        "hostile.zip: member '../../escaped.png' leads out of the folder",
        "hostile.zip: member '/tmp/absolute.png' has an absolute name",
        "hostile.zip: member 'link.png' is a link",
        "bomb.zip: unpacks to more than 100 times its size",
        "no.zip: damaged",
        "seq_1/left_frames/frame003.png: frame without a mask",
    ):
        assert part in report, part
    assert sorted(Path(tmp_path).rglob("*")) == before


def test_an_archive_may_contain_the_folder_of_videos(tmp_path, capsys):
    write_videos(tmp_path / "tree" / "mine", frames=2)
    command = ["--dataset", "folder", "--out", str(tmp_path / "out"), "--raw"]
    assert main([*command, str(tmp_path / "tree")]) == 2
    assert "its folder mine does, so use that" in capsys.readouterr().err
    archive = shutil.make_archive(tmp_path / "in", "gztar", tmp_path / "tree")
    assert main([*command, archive]) == 0
    shutil.rmtree(tmp_path / "tree" / "mine")
    (tmp_path / "tree" / "mine").mkdir()
    (tmp_path / "tree" / "mine" / "x.png").touch()
    archive = shutil.make_archive(tmp_path / "no", "gztar", tmp_path / "tree")
    command[3] = str(tmp_path / "other")
    assert main([*command, archive]) == 2
    report = capsys.readouterr().err
    assert "in the archive: no videos" in report and "partial" not in report
