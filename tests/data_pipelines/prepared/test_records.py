"""Prepared data: random access, threads, and detection of damage."""

import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import (
    ClassInfo,
    DataError,
    cache_frames,
    check,
    resize_frames,
)
from data_pipelines.io.images import difference_hash
from data_pipelines.prepared import (
    MANIFEST,
    FrameEntry,
    Manifest,
    array_sha256,
    open_prepared,
    read_manifest,
    verify,
    write_manifest,
)
from data_pipelines.prepared.store import write_records
from data_pipelines.verify import main

LAZY = """
import sys
sys.modules["tensorflow_datasets"] = None  # cannot be imported
import data_pipelines.prepare, data_pipelines.verify
from dmnet_jax.datasets import open_split
"""
COUNTS = {"first": 4, "second": 3}
SIZE = (6, 8)


def encode(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def frame(video, index):
    """Returns the image and the label of a frame; every fourth frame has no label."""
    rng = np.random.default_rng([len(video), index])
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    label = rng.integers(0, 3, (12, 16), dtype=np.uint8)
    label[0, index] = 255
    return image, None if index == 3 else label


def entry_of(video, index):
    image, label = frame(video, index)
    known = label is not None
    counts = np.bincount(label.ravel(), minlength=256) if known else None
    return FrameEntry(
        video=video,
        frame=f"f{index}",
        index=index,
        sources={f"{video}/{index}.png": "0" * 64},
        image_size=SIZE,
        image_sha256=array_sha256(image),
        label_size=(12, 16) if known else None,
        label_sha256=array_sha256(label) if known else None,
        histogram=tuple(int(n) for n in counts[:3]) if known else (),
        ignored=1 if known else 0,
        odd={},
        look=difference_hash(image),
    )


def record_of(video, index):
    image, label = frame(video, index)
    label = np.full(SIZE, 255, np.uint8) if label is None else label
    return {
        "image": encode(image),
        "label": encode(label),
        "video": video,
        "frame": f"f{index}",
        "index": index,
    }


PLACES = [(video, i) for video, count in COUNTS.items() for i in range(count)]


def write(folder, records):
    folder.mkdir()
    place = write_records(folder, records, "png")
    manifest = Manifest(
        request={"dataset": "made"},
        classes=tuple(ClassInfo(f"c{i}", (i, i, i)) for i in range(3)),
        resize="none",
        records=place,
        versions={"python": "3"},
        frames=tuple(entry_of(*place) for place in PLACES),
    )
    write_manifest(folder, manifest)
    return manifest


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "out"
    return folder, write(folder, (record_of(*place) for place in PLACES))


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_frames_are_read_in_any_order_by_many_threads(written):
    folder, manifest = written
    source = open_prepared(folder)
    assert source.classes == manifest.classes
    assert [(v.name, len(v.frames)) for v in source.videos] == list(COUNTS.items())
    assert source.videos[0].unlabeled == {3}
    names = list(COUNTS)
    places = [(names.index(video), index) for video, index in PLACES] * 20
    order = np.random.default_rng(0).permutation(len(places))

    def compare(number):
        video, index = places[number]
        image, label = frame(names[video], index)
        np.testing.assert_array_equal(source.image(video, index), image)
        np.testing.assert_array_equal(source.label(video, index), label)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(compare, order))


def test_a_frame_without_a_label_has_none(written):
    source = open_prepared(written[0])
    assert source.label(0, 3) is None
    with pytest.raises(IndexError):
        source.image(0, 4)


def test_views_can_be_applied(written):
    source = cache_frames(resize_frames(open_prepared(written[0]), (3, 4)))
    check(source)
    assert source.image(1, 2).shape == (3, 4, 3)
    assert source.label(1, 2).shape == (12, 16)


def test_manifest_is_read_as_written(written):
    assert read_manifest(written[0]) == written[1]


def test_undamaged_data_are_verified(written, capsys):
    assert verify(written[0]) == (2, 7)
    assert main([str(written[0])]) == 0
    assert "7 frames, all match the manifest" in capsys.readouterr().out


def test_an_edited_manifest_is_refused(copy, capsys):
    file = copy / MANIFEST
    content = json.loads(file.read_text())
    content["frames"][2]["index"] = 1
    for text in (json.dumps(content), file.read_text()[:-40], "[]", "{}"):
        file.write_text(text)
        with pytest.raises(DataError, match="prepare the data again"):
            open_prepared(copy)
        assert main([str(copy)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    file.unlink()
    assert main([str(copy)]) == 2
    assert "data_pipelines.prepare" in capsys.readouterr().err


def test_damage_to_the_records_is_detected(copy):
    """After bit flips and truncation, an error is raised or the values are correct."""
    (shard,) = copy.rglob("*array_record-*")
    original = shard.read_bytes()
    # Most of a small shard is padding, where damage has no effect.
    used = np.flatnonzero(np.frombuffer(original, np.uint8))
    rng = np.random.default_rng(0)
    detected = 0
    for trial in range(12):
        data = bytearray(original)
        place = int(rng.choice(used))
        if trial % 3:
            data[place] ^= 1 << int(rng.integers(8))
        else:
            del data[place:]
        shard.write_bytes(bytes(data))
        try:
            verify(copy)
        except DataError as error:
            detected += 1
            assert all(str(copy) in fault for fault in error.faults)
            continue
        source = open_prepared(copy)
        for number, (video, index) in enumerate(PLACES):
            image, _ = frame(video, index)
            place = (0, number) if number < 4 else (1, number - 4)
            np.testing.assert_array_equal(source.image(*place), image)
    assert detected >= 6
    shard.unlink()
    with pytest.raises(DataError):
        verify(copy)


@pytest.mark.parametrize("change", ["image", "label", "order", "fewer", "size"])
def test_records_that_differ_from_the_manifest_are_reported(tmp_path, change):
    records = [record_of(*place) for place in PLACES]
    image, label = frame("first", 1)
    if change == "image":
        image[2, 3, 0] ^= 1
        records[1]["image"] = encode(image)
    elif change == "label":
        label[4, 4] = (label[4, 4] + 1) % 3
        records[1]["label"] = encode(label)
    elif change == "order":
        records[1], records[2] = records[2], records[1]
    elif change == "size":
        records[1]["image"] = encode(image[:-1])
    else:
        records.pop()
    write(tmp_path / "out", records)
    with pytest.raises(DataError) as error:
        verify(tmp_path / "out")
    messages = {
        "image": "frame f1: image decodes to other values",
        "label": "frame f1: label decodes to other values",
        "order": "record of first, frame f2",
        "size": "image of (5, 8)",
        "fewer": "6 records, the manifest has 7",
    }
    assert messages[change] in error.value.faults[0]


def test_the_hash_depends_on_shape_and_dtype():
    array = np.arange(12, dtype=np.uint8)
    hashes = {
        array_sha256(array),
        array_sha256(array.reshape(3, 4)),
        array_sha256(array.reshape(4, 3)),
        array_sha256(array.astype(np.int8)),
    }
    assert len(hashes) == 4
    flipped = array.reshape(3, 4)[:, ::-1]
    assert array_sha256(flipped) == array_sha256(flipped.copy())


def test_raw_folders_are_read_without_tensorflow_datasets():
    subprocess.run([sys.executable, "-c", LAZY], check=True)
