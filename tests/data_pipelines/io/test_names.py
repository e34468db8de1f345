"""Untrusted names, damaged files, and folders that try to make code run."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import ClassInfo, DataError
from data_pipelines.io.names import MAX_BYTES, file_name, name_fault, printable
from data_pipelines.prepare.__main__ import main as prepare
from data_pipelines.prepare.report import describe
from data_pipelines.prepared import (
    MANIFEST,
    open_prepared,
    read_manifest,
    verify,
    write_manifest,
)
from data_pipelines.prepared.manifest import _digest
from data_pipelines.sources.folder import open_folder
from data_pipelines.verify import main as verify_main
from dmnet_jax.config import Config, ConfigError, validate
from tests.data_pipelines.io.test_images import write_png
from tests.support.tiny_run import ROOT, write_videos

BAD = {
    "../../escaped/x": "separator",
    "..": "leads out",
    ".": "leads out",
    "/etc/passwd": "separator",
    "a\\b": "separator",
    "C:x": "drive",
    "a\x1b[2Jb": "control character 0x1b",
    "a\nb": "control character 0xa",
    "a\x00": "control character",
    "a\u202eb": "control character 0x202e",
    "a\x9bb": "control character 0x9b",
    "nul": "reserved",
    "COM1.txt": "reserved",
    "bad\udcff": "not UTF-8",
    "": "empty",
    "  ": "empty",
    "x" * 256: "longer",
    "ä" * 128: "longer",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("names")
    write_videos(root / "raw", frames=2)
    command = ["--dataset", "folder", "--raw", f"{root}/raw", "--out", f"{root}/out"]
    assert prepare(command) == 0
    return root / "out"


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "copy")


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_bad_names_are_refused(name):
    assert BAD[name] in name_fault(name)


@pytest.mark.parametrize(
    "name", ["a", "2026-11-25T10:30:05", "手術 1", "résumé", "x" * 255, "-rf", "#1%&"]
)
def test_unusual_but_valid_names_are_accepted(name):
    assert not name_fault(name)


def test_printable_escapes_control_characters():
    assert printable("a\x1b[2Jb\udcff\u202e\nc") == "a\\x1b[2Jb\\udcff\\u202e\nc"


def test_long_file_names_are_cut():
    long = "v" * 200, "f" * 200
    name = file_name(*long, suffix=".png")
    assert len(name) <= MAX_BYTES - 30 and name.endswith(".png")
    assert name != file_name(long[0], long[1] + "g", suffix=".png")
    assert file_name("v", "f", suffix=".png") == "v_f.png"


@pytest.mark.parametrize("name", [name for name in BAD], ids=ascii)
@pytest.mark.parametrize("field", ["video", "frame"])
def test_a_manifest_with_bad_names_is_refused(copy, field, name, capsys):
    manifest = read_manifest(copy)
    changed = [
        replace(entry, **{field: name})
        if field == "frame" and entry.index == 0 or entry.video == "one"
        else entry
        for entry in manifest.frames
    ]
    write_manifest(copy, replace(manifest, frames=tuple(changed)))
    with pytest.raises(DataError, match=MANIFEST) as error:
        open_prepared(copy)
    assert BAD[name] in str(error.value) or "each once" in str(error.value)
    assert verify_main([str(copy)]) == 2
    report = capsys.readouterr().err
    assert report.count("\n") == 1 and "\x1b" not in report


@pytest.mark.parametrize(
    "change",
    [
        {"records": "../raw"},
        {"records": "/etc"},
        {"classes": (ClassInfo("a", (0, 0, 0)), ClassInfo("\x1b[2J", (0, 0, 0)))},
    ],
)
def test_bad_folder_and_class_names_of_a_manifest_are_refused(copy, change):
    write_manifest(copy, replace(read_manifest(copy), **change))
    with pytest.raises(DataError, match=MANIFEST):
        open_prepared(copy)


def test_names_of_files_and_classes_are_checked_when_opened(tmp_path):
    write_videos(tmp_path, frames=2)
    for kind in ("frames", "masks"):
        folder = os.fsencode(tmp_path / "one" / kind)
        os.rename(folder + b"/1.png", folder + b"/1\xff.png")
    (tmp_path / "two").rename(tmp_path / "two\x1b[2J")
    classes = [{"name": "a"}, {"name": "b\x07"}, {"name": "c"}]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(DataError) as error:
        open_folder(tmp_path)
    report = printable(error.value)
    assert report.count("is not UTF-8; rename it") == 2
    assert "two\\x1b[2J: the name has the control character 0x1b" in report
    assert "class 1: the name 'b\\x07' has the control character 0x7" in report
    assert len(error.value.faults) == 4


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", "a\nb"])
def test_bad_run_names_are_refused(name):
    with pytest.raises(ConfigError, match="name is "):
        validate(replace(Config(), name=name))


MODULE = """
import pathlib
pathlib.Path(r"{mark}").touch()
class Feature:
    @classmethod
    def from_json_content(cls, *_): return cls()
"""


@pytest.mark.parametrize("where", ["description", "record", "info"])
def test_a_prepared_folder_cannot_name_code(copy, where, tmp_path, monkeypatch, capsys):
    """The module is importable, but it is never imported."""
    mark = tmp_path / "it_ran"
    (folder,) = copy.glob("prepared_frames/*")
    for place in (tmp_path, copy, folder):
        (place / "stranger.py").write_text(MODULE.format(mark=mark))
        monkeypatch.syspath_prepend(place)
    monkeypatch.chdir(tmp_path)
    if where == "info":
        path = folder / "dataset_info.json"
        info = json.loads(path.read_text())
        info |= {"moduleName": "stranger", "name": "../../x", "version": "9.9.9"}
        info["splits"][0]["filepathTemplate"] = "../../../../etc/passwd"
        path.write_text(json.dumps(info))
        assert verify(copy) == (2, 4)  # this file is not used
    else:
        path = folder / "features.json"
        features = json.loads(path.read_text())
        target = features
        if where == "record":
            target = features["featuresDict"]["features"]["label"]
        target["pythonClassName"] = "stranger.Feature"
        path.write_text(json.dumps(features))
        with pytest.raises(DataError, match=r"features\.json was not written by this"):
            open_prepared(copy)
        assert verify_main([str(copy)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not mark.exists() and "stranger" not in sys.modules


def test_random_damage_of_a_manifest_raises_data_errors_only(copy):
    """The manifest's hash is recomputed, as anyone with write access could do."""
    rng = np.random.default_rng(0)
    original = json.loads((copy / MANIFEST).read_text())
    original.pop("sha256")
    values = [None, -1, 2**70, 1.5, "", "x", "..", [], {}, [[]], True, float("nan")]
    refused = 0
    for _ in range(400):
        content = json.loads(json.dumps(original))
        node, key = content, ""
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            below = node[key]
            if not isinstance(below, dict | list) or rng.random() < 0.2 or not below:
                break
            node = below
        if rng.random() < 0.3 and key in (node if isinstance(node, dict) else ()):
            del node[key]
        else:
            node[key] = values[rng.integers(len(values))]
        sealed = {"sha256": _digest(content), **content}
        (copy / MANIFEST).write_text(json.dumps(sealed))
        try:
            source = open_prepared(copy)
            for video in range(len(source.videos)):
                source.image(video, 0)
                source.label(video, 0)
            assert describe(source.manifest)
        except DataError as error:
            refused += 1
            assert str(copy) in str(error)
    assert refused > 250


def test_random_bytes_in_prepared_files_raise_data_errors_only(copy):
    rng = np.random.default_rng(1)
    files = [copy / MANIFEST, *copy.glob("prepared_frames/*/*")]
    for number in range(200):
        path = files[number % len(files)]
        original = path.read_bytes()
        data = bytearray(original)
        for place in rng.integers(0, len(data), 8):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if number % 3 else data)
        try:
            verify(copy)
        except DataError as error:
            assert str(copy) in str(error)
        path.write_bytes(original)
    deep = "[" * 100_000 + "]" * 100_000
    for path in files[:2]:
        original = path.read_bytes()
        path.write_text(deep)
        try:
            verify(copy)
        except DataError as error:
            assert str(copy) in str(error)
        path.write_bytes(original)


def test_random_damage_of_classes_json_names_the_file(tmp_path):
    rng = np.random.default_rng(2)
    write_videos(tmp_path, frames=1)
    path = tmp_path / "classes.json"
    original = path.read_bytes()
    refused = 0
    for number in range(200):
        data = bytearray(original)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if number % 5 == 0 else data)
        try:
            open_folder(tmp_path)
        except DataError as error:
            refused += 1
            assert all(str(path) in line for line in error.faults)
    assert refused > 100
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="classes.json: not valid JSON"):
        open_folder(tmp_path)


def test_names_in_another_script_can_be_printed_on_an_ascii_terminal(tmp_path):
    write_videos(tmp_path / "raw", frames=1, names=("手術", "Ä"))
    command = [sys.executable, "-m", "data_pipelines.prepare", "--dataset", "folder"]
    result = subprocess.run(
        [*command, "--raw", tmp_path / "raw", "--out", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    assert rb"\u624b\u8853: 1 frames" in result.stdout


def test_a_record_with_a_different_image_is_refused(copy):
    """Labels with 16 bits, and with a class that does not exist."""
    write_png(copy / "deep.png", np.full((64, 64, 1), 3), 0, 16)
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(copy / "class.png")
    source = open_prepared(copy)
    for name, found in (("deep.png", "16 bits"), ("class.png", "label of class 9")):
        data = (copy / name).read_bytes()
        record = {**source._records[0], "label": data}
        source._records = [record]
        with pytest.raises(DataError, match=found):
            source.label(0, 0)
