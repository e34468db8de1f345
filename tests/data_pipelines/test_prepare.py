"""Raw trees to records: the content, the report of faults, and interruption."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.endovis17 import open_endovis17
from data_pipelines.endovis18 import open_endovis18
from data_pipelines.folder import open_folder
from data_pipelines.frames import resize_image
from data_pipelines.prepare.__main__ import main
from data_pipelines.records import open_prepared, read_manifest
from data_pipelines.synthetic import write_endovis17, write_endovis18

ROOT = Path(__file__).parents[2]
SIZE = "32x40"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    small = {"seed": 5, "frames": 3, "size": (64, 80), "threads": 1}
    write_endovis17(root / "endovis17", sequences=(1, 7), **small)
    write_endovis18(root / "endovis18", sequences=(1, 2), **small)
    return root


@pytest.fixture
def folder(tmp_path):
    """Two videos of one's own, the masks in `parts`."""
    rng = np.random.default_rng(0)
    for video in ("a", "b"):
        for frame in range(3):
            base = tmp_path / "own" / video
            picture = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
            save(base / "frames" / f"frame_{frame}.png", picture)
            mask = rng.integers(0, 3, (24, 30), dtype=np.uint8)
            save(base / "parts" / f"frame_{frame}.png", mask)
    return tmp_path / "own"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def run(dataset, raw, out, *options):
    return main(["--dataset", dataset, "--raw", str(raw), "--out", str(out), *options])


def assert_same_frames(prepared, source, size=None):
    assert prepared.classes == source.classes
    assert prepared.videos == source.videos
    for number, video in enumerate(source.videos):
        for frame in range(len(video.frames)):
            image = source.image(number, frame)
            image = image if size is None else resize_image(image, size)
            np.testing.assert_array_equal(prepared.image(number, frame), image)
            label, stored = source.label(number, frame), prepared.label(number, frame)
            np.testing.assert_array_equal(stored, label)
            entry = prepared.entry(number, frame)
            counts = np.bincount(label.ravel(), minlength=256)
            assert list(entry.histogram) == list(counts[: len(source.classes)])
            assert entry.ignored == counts[255]


def snapshot(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("task", ["types", "parts", "binary"])
def test_endovis17_is_what_the_reader_reads(raw, tmp_path, task):
    out = tmp_path / "out"
    assert run("endovis17", raw / "endovis17", out, "--size", SIZE, "--task", task) == 0
    source = open_endovis17(raw / "endovis17", task=task)
    assert_same_frames(open_prepared(out), source, (32, 40))
    entry = open_prepared(out).entry(0, 2)
    files = [path for path in entry.sources if "ground_truth" in path]
    assert len(files) == 4 and len(entry.sources) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("task", ["parts", "all"])
def test_endovis18_is_what_the_reader_reads(raw, tmp_path, task):
    out = tmp_path / "out"
    assert run("endovis18", raw / "endovis18", out, "--size", SIZE, "--task", task) == 0
    source = open_endovis18(raw / "endovis18", task=task)
    assert_same_frames(open_prepared(out), source, (32, 40))


def test_odd_label_pixels_are_counted(tmp_path, capsys):
    root = tmp_path / "raw"
    write_endovis18(root, seed=5, sequences=(1,), frames=2, size=(64, 80))
    path = root / "seq_1" / "labels" / "frame001.png"
    label = np.array(Image.open(path))
    label[0, :7] = 0, 1, 0
    save(path, label)
    for choice in ("nearest", "ignore"):
        out = tmp_path / choice
        assert run("endovis18", root, out, "--size", SIZE, "--on-unknown", choice) == 0
        assert "label pixels of no class's colour: 7" in capsys.readouterr().out
        ignored = open_prepared(out).entry(0, 1).ignored
        assert ignored == (7 if choice == "ignore" else 0)
    root = tmp_path / "raw17"
    write_endovis17(root, seed=5, sequences=(3,), frames=1, size=(64, 80))
    path = next(root.rglob("ground_truth/*/frame000.png"))
    mask = np.array(Image.open(path))
    mask[mask.shape[0] // 2, mask.shape[1] // 2] = 31
    save(path, mask)
    assert run("endovis17", root, tmp_path / "17", "--size", SIZE) == 0
    assert "no part's: 31 (1 pixels)" in capsys.readouterr().out


def test_own_folders_keep_their_size(folder, tmp_path):
    for dataset in ("folder", "camvid"):
        out = tmp_path / dataset
        assert run(dataset, folder, out, "--masks", "parts") == 0
        assert_same_frames(open_prepared(out), open_folder(folder, masks="parts"))


def test_frames_without_a_mask_are_kept_when_allowed(folder, tmp_path):
    (folder / "a" / "parts" / "frame_1.png").unlink()
    options = ("--masks", "parts", "--allow-missing")
    assert run("folder", folder, tmp_path / "out", *options) == 0
    prepared = open_prepared(tmp_path / "out")
    assert prepared.videos[0].unlabelled == {1} and not prepared.videos[1].unlabelled
    assert prepared.label(0, 1) is None and prepared.label(0, 2) is not None
    assert prepared.entry(0, 1).histogram == ()
    assert list(prepared.entry(0, 1).sources) == ["a/frames/frame_1.png"]


def test_endovis15_has_its_classes(folder, tmp_path):
    assert run("endovis15", folder, tmp_path / "out", "--size", "12x15") == 0
    prepared = open_prepared(tmp_path / "out")
    names = [info.name for info in prepared.classes]
    assert names == ["background", "shaft", "manipulator"]
    assert prepared.image(1, 2).shape == (12, 15, 3)
    assert prepared.label(1, 2).shape == (24, 30)


def test_jpeg_is_near_and_its_hash_is_of_what_it_decodes_to(raw, tmp_path):
    out = tmp_path / "out"
    options = ("--format", "jpeg", "--size", SIZE)
    assert run("endovis17", raw / "endovis17", out, *options) == 0
    source, prepared = open_endovis17(raw / "endovis17"), open_prepared(out)
    wanted = resize_image(source.image(0, 0), (32, 40)).astype(int)
    error = np.abs(prepared.image(0, 0) - wanted).mean()
    assert 0 < error < 4


def test_two_runs_have_the_same_manifest_at_any_thread_count(raw, tmp_path):
    for number in (1, 3):
        out = tmp_path / str(number)
        options = ("--size", SIZE, "--threads", str(number))
        assert run("endovis18", raw / "endovis18", out, *options) == 0
    assert read_manifest(tmp_path / "1") == read_manifest(tmp_path / "3")


def test_parquet_where_array_record_is_missing(raw, tmp_path, monkeypatch):
    assert run("endovis18", raw / "endovis18", tmp_path / "a", "--size", SIZE) == 0
    name = "array_record.python.array_record_module"
    monkeypatch.setitem(sys.modules, name, None)
    assert run("endovis18", raw / "endovis18", tmp_path / "p", "--size", SIZE) == 0
    assert list((tmp_path / "p").rglob("*.parquet*"))
    first, second = read_manifest(tmp_path / "a"), read_manifest(tmp_path / "p")
    assert second.versions["records"] == "parquet"
    assert first.frames == second.frames
    assert_same_frames(
        open_prepared(tmp_path / "p"), open_endovis18(raw / "endovis18"), (32, 40)
    )


def test_archives_are_as_good_as_folders(raw, tmp_path, capsys):
    zips = tmp_path / "zips"
    zips.mkdir()
    tree = raw / "endovis18"
    for k in (1, 2):
        with zipfile.ZipFile(zips / f"release_{k}.zip", "w") as archive:
            for path in sorted((tree / f"seq_{k}").rglob("*.png")):
                archive.write(path, f"release_{k}/{path.relative_to(tree)}")
            archive.writestr("__MACOSX/seq_1/left_frames/._frame000.png", b"x")
    options = ["--size", SIZE, "--dataset", "endovis18"]
    both = [str(path) for path in sorted(zips.iterdir())]
    for number, given in enumerate(([str(zips)], both)):
        out = tmp_path / f"out{number}"
        assert main([*options, "--raw", *given, "--out", str(out)]) == 0
        assert_same_frames(open_prepared(out), open_endovis18(tree), (32, 40))
        assert not (out / "raw").exists()
    assert "for 1000 frames" in capsys.readouterr().out


def test_a_hostile_archive_leaves_nothing(tmp_path, capsys):
    archive = tmp_path / "in" / "bad.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../../escaped.png", b"x")
    assert run("endovis18", archive, tmp_path / "out") == 2
    assert "leads out of the folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_all_faults_of_a_broken_tree_come_in_one_report(tmp_path, capsys):
    root = tmp_path / "raw"
    write_endovis18(root, seed=1, sequences=(1, 2), frames=5, size=(64, 80))
    first, second = root / "seq_1", root / "seq_2"
    picture, label = np.zeros((64, 80, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)
    (first / "labels" / "frame000.png").unlink()
    save(first / "left_frames" / "frame007.png", picture)
    save(first / "left_frames" / "frame003.png", picture[:50])
    save(first / "left_frames" / "frame2.png", picture)
    save(first / "labels" / "frame2.png", label)
    label[5, 6] = 1, 2, 3
    save(second / "labels" / "frame001.png", label)
    cut = second / "left_frames" / "frame004.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    assert run("endovis18", root, tmp_path / "out") == 2
    report = capsys.readouterr().err
    for part in (
        r"frame000\.png: missing",
        r"frame007\.png has no label",
        r"frame003\.png: 80x50",
        r"frame2\.png: same frame number as frame002",
        r"frame001\.png: colour \(1, 2, 3\) at row 5, column 6",
        r"frame004\.png: damaged or cut short",
    ):
        assert len(re.findall(part, report)) == (2 if "same frame" in part else 1), part
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_faults_of_pixels_alone_are_all_reported(raw, tmp_path, capsys):
    root = tmp_path / "raw"
    write_endovis17(root, seed=5, sequences=(3,), frames=4, size=(64, 80))
    base = root / "instrument_dataset_3"
    for name in ("frame001.png", "frame003.png"):
        path = base / "left_frames" / name
        path.write_bytes(path.read_bytes()[:-300])
    mask = next((base / "ground_truth").glob("*/frame002.png"))
    save(mask, np.full(np.array(Image.open(mask)).shape, 90, np.uint8))
    assert run("endovis17", root, tmp_path / "out", "--task", "parts") == 2
    report = capsys.readouterr().err
    for name in ("frame001.png: damaged", "frame003.png: damaged", "mask value 90"):
        assert name in report
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_faults_of_own_folders_are_all_reported(folder, tmp_path, capsys):
    (folder / "a" / "parts" / "frame_1.png").unlink()
    save(folder / "b" / "frames" / "frame_01.png", np.zeros((24, 30, 3), np.uint8))
    save(folder / "b" / "parts" / "frame_01.png", np.zeros((24, 30), np.uint8))
    cut = folder / "b" / "frames" / "frame_2.png"
    cut.write_bytes(cut.read_bytes()[:-50])
    assert run("folder", folder, tmp_path / "out", "--masks", "parts") == 2
    report = capsys.readouterr().err
    for part in ("frame without a mask", "same frame number", "damaged or cut short"):
        assert part in report
    assert not (tmp_path / "out").exists()


def test_a_missing_raw_folder_says_where_the_data_come_from(tmp_path, capsys):
    for dataset, tree in (
        ("endovis17", "instrument_dataset_K/left_frames/frameNNN.png"),
        ("endovis18", "seq_K/labels/frameNNN.png"),
        ("endovis15", "RAW/VIDEO/parts/NAME.png"),
        ("camvid", "classes.json"),
        ("folder", "RAW/VIDEO/masks/NAME.png"),
    ):
        assert run(dataset, tmp_path / "nowhere", tmp_path / "out") == 2
        report = capsys.readouterr().err
        assert report.startswith("error: ") and tree in report
    assert not any(tmp_path.iterdir())


def test_a_second_run_does_nothing_and_another_request_is_refused(
    raw, tmp_path, capsys
):
    out = tmp_path / "out"
    assert run("endovis17", raw / "endovis17", out, "--size", SIZE) == 0
    before = snapshot(out)
    assert run("endovis17", raw / "endovis17", out, "--size", SIZE) == 0
    assert "already prepared" in capsys.readouterr().out
    assert run("endovis17", raw / "endovis17", out, "--size", "16x20") == 2
    assert "prepared with size [32, 40]" in capsys.readouterr().err
    assert snapshot(out) == before


def test_wrong_requests_are_refused_in_one_line(raw, folder, tmp_path, capsys):
    taken = tmp_path / "taken"
    save(taken / "x.png", np.zeros((2, 2), np.uint8))
    for dataset, out, options, match in (
        ("endovis17", "out", ("--task", "all"), "endovis17 has types, parts"),
        ("folder", "out", ("--task", "parts"), "has no tasks"),
        ("endovis17", "out", ("--masks", "m"), "masks 'm'"),
        ("folder", "out", ("--size", "8"), "HEIGHTxWIDTH"),
        ("folder", "out", ("--size", "0x8"), "at least 1"),
        ("folder", "out", ("--threads", "0"), "at least 1"),
        ("folder", "taken", (), "not empty and without manifest.json"),
        ("folder", "taken/x.png", (), "is a file"),
        ("folder", ".", (), "not empty|holds the raw"),
    ):
        assert run(dataset, folder, tmp_path / out, *options) == 2
        report = capsys.readouterr().err
        assert re.search(match, report) and report.count("\n") == 1, report


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_killed_run_leaves_nothing_half_done(raw, tmp_path):
    command = [sys.executable, "-m", "data_pipelines.prepare", "--dataset"]
    command += ["endovis17", "--raw", str(raw / "endovis17"), "--size", SIZE]
    out = tmp_path / "out"
    work = tmp_path / ".out.partial"
    process = subprocess.Popen(
        [*command, "--out", str(out)], env=environment(), stdout=subprocess.DEVNULL
    )
    limit = time.monotonic() + 60
    while not work.exists() and time.monotonic() < limit:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not out.exists()
    (work / "leftover").mkdir(parents=True, exist_ok=True)
    assert run("endovis17", raw / "endovis17", out, "--size", SIZE) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert_same_frames(open_prepared(out), open_endovis17(raw / "endovis17"), (32, 40))


def test_neither_tensorflow_nor_jax_is_imported(raw, tmp_path):
    script = (
        "import json, sys\n"
        "from data_pipelines.prepare.__main__ import main\n"
        "from data_pipelines.records import verify\n"
        f"raw, out = {str(raw / 'endovis17')!r}, {str(tmp_path / 'out')!r}\n"
        "arguments = ['--dataset', 'endovis17', '--raw', raw, '--out', out]\n"
        "status = main([*arguments, '--size', '32x40'])\n"
        "counts = verify(out)\n"
        "found = [n for n in ('tensorflow', 'jax', 'dmnet_jax') if n in sys.modules]\n"
        "print(json.dumps([status, counts, found]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, [2, 6], []]
