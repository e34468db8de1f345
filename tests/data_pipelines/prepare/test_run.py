"""Preparing raw folders: the records, error messages, and interruption."""

import io
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

from data_pipelines.frames import resize_image
from data_pipelines.prepare.__main__ import main
from data_pipelines.prepare.progress import ProgressBar
from data_pipelines.prepared import open_prepared, read_manifest
from data_pipelines.sources.endovis17 import open_endovis17
from data_pipelines.sources.endovis18 import open_endovis18
from data_pipelines.sources.folder import open_folder
from data_pipelines.synthetic import write_endovis17, write_endovis18

ROOT = Path(__file__).parents[3]
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
    """Two videos in the folder layout, with masks in `parts`."""
    rng = np.random.default_rng(0)
    for video in ("a", "b"):
        for frame in range(3):
            base = tmp_path / "folder" / video
            picture = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
            save(base / "frames" / f"frame_{frame}.png", picture)
            mask = rng.integers(0, 3, (24, 30), dtype=np.uint8)
            save(base / "parts" / f"frame_{frame}.png", mask)
    return tmp_path / "folder"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def run(dataset, raw, out, *options):
    command = ["--dataset", dataset, "--raw", str(raw), "--out", str(out), *options]
    try:
        return main(command)
    except SystemExit as stop:  # raised by the parser
        return stop.code


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
def test_prepared_endovis17_equals_the_source(raw, tmp_path, task):
    out = tmp_path / "out"
    assert run("endovis17", raw / "endovis17", out, "--size", SIZE, "--task", task) == 0
    source = open_endovis17(raw / "endovis17", task=task)
    assert_same_frames(open_prepared(out), source, (32, 40))
    entry = open_prepared(out).entry(0, 2)
    files = [path for path in entry.sources if "ground_truth" in path]
    assert len(files) == 4 and len(entry.sources) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("task", ["parts", "all"])
def test_prepared_endovis18_equals_the_source(raw, tmp_path, task):
    out = tmp_path / "out"
    assert run("endovis18", raw / "endovis18", out, "--size", SIZE, "--task", task) == 0
    source = open_endovis18(raw / "endovis18", task=task)
    assert_same_frames(open_prepared(out), source, (32, 40))


def test_unknown_label_values_are_counted(tmp_path, capsys):
    root = tmp_path / "raw"
    write_endovis18(root, seed=5, sequences=(1,), frames=2, size=(64, 80))
    path = root / "seq_1" / "labels" / "frame001.png"
    label = np.array(Image.open(path))
    label[0, :7] = 0, 1, 0
    save(path, label)
    for choice in ("nearest", "ignore"):
        out = tmp_path / choice
        assert run("endovis18", root, out, "--size", SIZE, "--on-unknown", choice) == 0
        report = "seq_1/labels/frame001.png: label pixels of no class, by value: "
        assert report + "#000100 (7)" in capsys.readouterr().out
        ignored = open_prepared(out).entry(0, 1).ignored
        assert ignored == (7 if choice == "ignore" else 0)
    root = tmp_path / "raw17"
    write_endovis17(root, seed=5, sequences=(3,), frames=1, size=(64, 80))
    path = next(root.rglob("ground_truth/*/frame000.png"))
    mask = np.array(Image.open(path))
    mask[mask.shape[0] // 2, mask.shape[1] // 2] = 31
    save(path, mask)
    assert run("endovis17", root, tmp_path / "17", "--size", SIZE) == 0
    assert "frame000.png: label pixels of no class, by value: 31 (1)" in (
        capsys.readouterr().out
    )
    name = path.relative_to(root).as_posix()
    assert open_prepared(tmp_path / "17").entry(0, 0).odd == {name: {"31": 1}}


def test_images_of_folders_keep_their_size(folder, tmp_path):
    out = tmp_path / "out"
    assert run("folder", folder, out, "--masks", "parts") == 0
    assert_same_frames(open_prepared(out), open_folder(folder, masks="parts"))


def test_frames_without_a_mask_are_kept_when_allowed(folder, tmp_path):
    (folder / "a" / "parts" / "frame_1.png").unlink()
    options = ("--masks", "parts", "--allow-missing")
    assert run("folder", folder, tmp_path / "out", *options) == 0
    prepared = open_prepared(tmp_path / "out")
    assert prepared.videos[0].unlabeled == {1} and not prepared.videos[1].unlabeled
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


def test_jpeg_is_close_and_its_hash_is_that_of_the_decoded_image(raw, tmp_path):
    out = tmp_path / "out"
    options = ("--format", "jpeg", "--size", SIZE)
    assert run("endovis17", raw / "endovis17", out, *options) == 0
    source, prepared = open_endovis17(raw / "endovis17"), open_prepared(out)
    expected = resize_image(source.image(0, 0), (32, 40)).astype(int)
    error = np.abs(prepared.image(0, 0) - expected).mean()
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


def test_archives_give_the_same_records_as_folders(raw, tmp_path, capsys):
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
    for number, paths in enumerate(([str(zips)], both)):
        out = tmp_path / f"out{number}"
        assert main([*options, "--raw", *paths, "--out", str(out)]) == 0
        assert_same_frames(open_prepared(out), open_endovis18(tree), (32, 40))
        assert not (out / "raw").exists()
    assert "for 1000 frames" in capsys.readouterr().out


def test_a_missing_raw_folder_says_how_to_obtain_the_data(tmp_path, capsys):
    for dataset, tree in (
        ("endovis17", "instrument_dataset_K/left_frames/frameNNN.png"),
        ("endovis18", "seq_K/labels/frameNNN.png"),
        ("endovis15", "RAW/VIDEO/parts/NAME.png"),
        ("camvid", "RAW/SPLIT/masks/SEQUENCE_NUMBER.png"),
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


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_only_on_a_terminal(terminal, capsys):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    bar = ProgressBar(stream)
    bar.show(1, 4)
    bar.show(2, 4)  # too soon after the first
    bar.show(4, 4)
    bar.log("a line")
    output = stream.getvalue()
    assert capsys.readouterr().out == "a line\n"
    if terminal:
        assert "1/4 frames" in output and "4/4 frames, 0:00 left" in output
        assert "2/4" not in output and output.endswith("\r\x1b[K")
    else:
        assert not output


def test_wrong_requests_are_refused_in_one_line(raw, folder, tmp_path, capsys):
    taken = tmp_path / "taken"
    save(taken / "x.png", np.zeros((2, 2), np.uint8))
    for dataset, out, options, match in (
        ("endovis17", "out", ("--task", "all"), "endovis17 has types, parts"),
        ("folder", "out", ("--task", "parts"), "has no tasks"),
        ("endovis17", "out", ("--masks", "m"), "masks 'm'"),
        ("folder", "out", ("--subset", "test"), "subset 'test': folder has train"),
        ("folder", "out", ("--size", "8"), "HEIGHTxWIDTH"),
        ("folder", "out", ("--size", "0x8"), "at least 1"),
        ("folder", "out", ("--threads", "0"), "at least 1"),
        ("folder", "taken", (), "not empty and without manifest.json"),
        ("folder", "taken/x.png", (), "is a file"),
        ("folder", ".", (), "not empty|contains the raw"),
    ):
        assert run(dataset, folder, tmp_path / out, *options) == 2
        report = capsys.readouterr().err
        assert re.search(match, report) and report.count("\n") == 1, report


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_killed_run_leaves_no_incomplete_output(raw, tmp_path):
    command = [sys.executable, "-m", "data_pipelines.prepare", "--dataset"]
    command += ["endovis17", "--raw", str(raw / "endovis17"), "--size", SIZE]
    out = tmp_path / "out"
    work = tmp_path / ".out.partial"
    process = subprocess.Popen(
        [*command, "--out", str(out)], env=environment(), stdout=subprocess.DEVNULL
    )
    limit = time.monotonic() + 60
    while not list(work.glob("prepared_frames/*")) and time.monotonic() < limit:
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
        "from data_pipelines.prepared import verify\n"
        f"raw, out = {str(raw / 'endovis17')!r}, {str(tmp_path / 'out')!r}\n"
        "arguments = ['--dataset', 'endovis17', '--raw', raw, '--out', out]\n"
        "status = main([*arguments, '--size', '32x40'])\n"
        "counts = verify(out)\n"
        "found = [n for n in ('tensorflow', 'jax', 'dmnet_jax') if n in sys.modules]\n"
        "print(json.dumps([status, counts, found]))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == [0, [2, 6], []]
