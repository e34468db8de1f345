"""Checks of file names, frame numbers, pairs, sizes and folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.io.pairs import (
    PICTURES,
    files_by_stem,
    natural_key,
    number_faults,
    numbered_folders,
    pairing_faults,
    size_faults,
)


def save(path, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros(size, np.uint8)).save(path)
    return path


def test_natural_order_compares_numbers():
    names = ["b", "a10", "a2", "a02", "a1b10", "a1b9", "10", "9"]
    ordered = ["9", "10", "a1b9", "a1b10", "a02", "a2", "a10", "b"]
    assert sorted(names, key=natural_key) == ordered


def test_files_by_stem_are_unique_and_ordered(tmp_path):
    for name in ("f10.png", "f9.jpg", ".f1.png", "f8.txt", "f9.png"):
        path = tmp_path / name
        path.write_bytes(b"")
    faults = []
    files = files_by_stem(tmp_path, PICTURES, faults)
    assert list(files) == ["f9", "f10"]
    (fault,) = faults
    assert fault == f"{tmp_path / 'f9.png'}: same frame as f9.jpg; keep one"
    for folder in (tmp_path / "none", tmp_path):
        faults = []
        assert files_by_stem(folder, (".bmp",), faults) == {}
        assert faults == [f"{folder}: missing or empty; put the files (bmp) there"]


def test_leading_zeros_do_not_distinguish_frames():
    files = {stem: Path(f"{stem}.png") for stem in ("f1", "f01", "f10", "f010", "g1")}
    faults = number_faults(files)
    assert [fault.partition(":")[0] for fault in faults] == ["f01.png", "f010.png"]
    assert "f1.png" in faults[0] and "f10.png" in faults[1]


def test_pairing_is_by_stem_and_skipped_for_an_empty_side():
    frames = {stem: Path(f"frames/{stem}.jpg") for stem in "ab"}
    masks = {stem: Path(f"masks/{stem}.png") for stem in "bc"}
    unmasked, unframed = pairing_faults(frames, masks, Path("masks"))
    assert unmasked == "frames/a.jpg: frame without a mask; add masks/a.png"
    assert unframed.startswith("masks/c.png: mask without a frame; add frame c")
    assert pairing_faults(frames, masks, Path("masks"), every=False) == [unframed]
    assert pairing_faults(frames, {}, Path("masks")) == []
    assert pairing_faults({}, masks, Path("masks")) == []


def test_files_of_a_different_size_are_reported(tmp_path):
    files = [save(tmp_path / name) for name in ("a.png", "b.png")]
    assert size_faults(files) == []
    other = save(tmp_path / "c.png", (4, 10))
    broken = tmp_path / "d.png"
    broken.write_bytes(b"no image")
    header, size = size_faults([other, broken, *files])
    assert str(broken) in header
    assert str(other) in size and "10x4 (width x height) but a.png is 10x8" in size
    assert size_faults([]) == []


def test_numbered_folders_are_selected_in_order_and_missing_ones_reported():
    folders = {1: Path("s1"), 3: Path("s3"), 4: Path("s4")}
    faults = []
    assert numbered_folders(Path("r"), "s", folders, None, faults) == folders
    selected = numbered_folders(Path("r"), "s", folders, (4, 1, 4), faults)
    assert list(selected) == [4, 1] and not faults
    assert list(numbered_folders(Path("r"), "s", folders, (2, 3), faults)) == [3]
    assert faults == ["r: no folder s2; there are (1, 3, 4)"]
