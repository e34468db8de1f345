"""Reading image files, and the views of a frame source."""

import copy
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from data_pipelines.frames import (
    IGNORE,
    ClassInfo,
    DataError,
    Video,
    cache_frames,
    check,
    keep_labels,
    read_gray,
    read_image,
    read_label,
    read_size,
    resize_frames,
    resize_image,
    resize_label,
    select_videos,
)


class Memory:
    """Two videos of random frames, 12x16, with labels of 6x8."""

    classes = (ClassInfo("background", (0, 0, 0)), ClassInfo("tool", (255, 0, 0)))
    videos = (Video("a", ("0", "1", "2")), Video("b", ("0", "1"), frozenset({1})))

    def __init__(self):
        self.reads = []

    def image(self, video, frame):
        self.reads.append((video, frame))
        rng = np.random.default_rng([video, frame])
        return rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)

    def label(self, video, frame):
        if frame in self.videos[video].unlabeled:
            return None
        rng = np.random.default_rng([video, frame, 1])
        return rng.integers(0, 2, (6, 8), dtype=np.uint8)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)


@pytest.fixture
def mask():
    return np.random.default_rng(1).integers(0, 4, (9, 11), dtype=np.uint8)


def palette(mask):
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([200, 10, 10, 9, 9, 9, 70, 80, 90, 1, 2, 3])
    return image


def test_png_is_exact_and_jpeg_is_close(tmp_path, rgb):
    smooth = np.asarray(Image.fromarray(rgb).resize((64, 48)))
    Image.fromarray(smooth).save(tmp_path / "a.png")
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.array_equal(read_image(tmp_path / "a.png"), smooth)
    jpeg = read_image(tmp_path / "a.jpg")
    assert jpeg.dtype == np.uint8 and jpeg.shape == smooth.shape
    assert np.abs(jpeg.astype(int) - smooth).mean() < 6
    assert read_size(tmp_path / "a.jpg") == (48, 64)


def test_gray_and_alpha_images_become_rgb(tmp_path, rgb):
    Image.fromarray(rgb[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(np.dstack([rgb, rgb[..., 0]])).save(tmp_path / "alpha.png")
    gray = read_image(tmp_path / "gray.png")
    assert np.array_equal(gray, np.repeat(rgb[..., :1], 3, axis=-1))
    assert np.array_equal(read_image(tmp_path / "alpha.png"), rgb)


@pytest.mark.parametrize("kind", ["L", "P", "RGB", "RGBA", "LA"])
def test_mask_values_are_kept_in_every_image_mode(tmp_path, mask, kind):
    image = palette(mask) if kind == "P" else Image.fromarray(mask).convert(kind)
    assert image.mode == kind
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_gray(tmp_path / "m.png"), mask)
    assert np.array_equal(read_label(tmp_path / "m.png", 4), mask)


def test_one_bit_masks_are_classes_0_and_1(tmp_path, mask):
    Image.fromarray(mask > 1).save(tmp_path / "m.png")
    label = read_label(tmp_path / "m.png", 2)
    assert label.dtype == np.uint8
    assert np.array_equal(label, mask > 1)


def test_a_two_bit_gray_mask_is_refused(tmp_path):
    path = tmp_path / "m.png"
    rows = b"\x00\x1b" * 4
    chunks = [(b"IHDR", bytes([0, 0, 0, 4, 0, 0, 0, 4, 2, 0, 0, 0, 0]))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        crc = zlib.crc32(name + body).to_bytes(4, "big")
        data += len(body).to_bytes(4, "big") + name + body + crc
    path.write_bytes(data)
    assert np.asarray(Image.open(path)).max() == 255
    with pytest.raises(DataError, match="8-bit"):
        read_label(path, 4)


def test_wrong_value_names_file_value_and_first_pixel(tmp_path, mask):
    mask[:] = 0
    mask[3, 7] = mask[5, 1] = 9
    mask[8, 8] = IGNORE
    Image.fromarray(mask).save(tmp_path / "m.png")
    with pytest.raises(DataError) as error:
        read_label(tmp_path / "m.png", 4)
    text = str(error.value)
    assert "m.png: mask value 9 at row 3, column 7" in text
    assert "0..3" in text and "\n" not in text
    label = read_label(tmp_path / "m.png", 4, ignore=(9,))
    assert np.array_equal(label == IGNORE, mask > 3)


@settings(max_examples=50, deadline=None)
@given(
    num_classes=st.integers(2, 255),
    values=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    ignore=st.sets(st.integers(0, 255), max_size=3),
)
def test_labels_hold_allowed_values_or_are_errors(
    tmp_path_factory, num_classes, values, ignore
):
    path = tmp_path_factory.mktemp("mask") / "m.png"
    Image.fromarray(np.array(values, np.uint8).reshape(2, 2)).save(path)
    expected = [IGNORE if value in ignore else value for value in values]
    if all(value < num_classes or value == IGNORE for value in expected):
        label = read_label(path, num_classes, tuple(ignore))
        assert label.ravel().tolist() == expected
    else:
        with pytest.raises(DataError):
            read_label(path, num_classes, tuple(ignore))


def test_color_masks_are_refused_with_the_pixel(tmp_path, rgb):
    rgb[:] = 1
    rgb[2, 5] = (1, 2, 3)
    Image.fromarray(rgb).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"\(1, 2, 3\) at row 2, column 5"):
        read_gray(tmp_path / "m.png")


def test_jpeg_masks_and_16_bit_images_are_refused(tmp_path, mask):
    Image.fromarray(mask).save(tmp_path / "m.jpg")
    Image.fromarray(mask.astype(np.uint16) * 300).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="PNG"):
        read_gray(tmp_path / "m.jpg")
    with pytest.raises(DataError, match="8-bit"):
        read_image(tmp_path / "deep.png")
    with pytest.raises(DataError, match="8-bit"):
        read_gray(tmp_path / "deep.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damaged_files_are_errors_that_name_them(tmp_path, rgb, suffix):
    original, path = tmp_path / f"original.{suffix}", tmp_path / f"bad.{suffix}"
    big = np.asarray(Image.fromarray(rgb).resize((64, 48), Image.Resampling.NEAREST))
    Image.fromarray(big).save(original)
    data = original.read_bytes()
    for cut in (0, 1, 10, 40, len(data) // 2, len(data) * 3 // 4):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match=path.name):
            read_image(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 300), 4):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            assert read_image(path).dtype == np.uint8
        except DataError as error:
            assert path.name in str(error)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        read_image(tmp_path / "nothing.png")


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9000, 12000, 20000, 60000])
def test_huge_images_are_refused_before_decoding(tmp_path, monkeypatch, side):
    path = tmp_path / "bomb.png"
    header = b"IHDR" + 2 * side.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"
        + header
        + zlib.crc32(header).to_bytes(4, "big")
        + b"\x00\x00\x00\x04IDAT\x78\x9c\x63\x00\x00\x00\x00\x00"
    )
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("load"))
    for read in (read_size, read_image, read_gray):
        with pytest.raises(DataError, match=r"bomb.png.* 64 million"):
            read(path)


def test_pixel_cap_is_an_argument(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png", max_pixels=99)
    with pytest.raises(DataError):
        read_image(tmp_path / "a.png", max_pixels=98)


@settings(max_examples=40, deadline=None)
@given(
    old=st.tuples(*[st.integers(1, 20)] * 2), new=st.tuples(*[st.integers(1, 20)] * 2)
)
def test_label_is_resized_by_pixel_centers(old, new):
    label = np.arange(old[0] * old[1], dtype=np.uint16).reshape(old)
    slow = [
        [
            label[int((y + 0.5) * old[0] / new[0]), int((x + 0.5) * old[1] / new[1])]
            for x in range(new[1])
        ]
        for y in range(new[0])
    ]
    assert np.array_equal(resize_label(label, new), slow)


def test_image_is_averaged_when_reduced(rgb):
    blocks = np.kron(rgb[:8, :8], np.ones((16, 16, 1), np.uint8))
    checks = blocks.copy()
    checks[::2, ::2] = checks[1::2, 1::2] = 0
    reduced = resize_image(checks, (32, 32)).astype(float)
    expected = resize_image(blocks, (32, 32)) / 2
    assert np.abs(reduced - expected).max() < 2


def test_image_is_interpolated_when_enlarged():
    ramp = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 3, axis=2)
    wide = resize_image(ramp, (1, 32))[0, :, 0].astype(float)
    expected = np.interp((np.arange(32) + 0.5) / 2 - 0.5, np.arange(16), ramp[0, :, 0])
    assert np.abs(wide - expected).max() <= 1


def test_resized_changes_images_and_keeps_labels():
    source = Memory()
    small = resize_frames(source, (5, 7))
    assert small.image(1, 0).shape == (5, 7, 3)
    assert np.array_equal(small.label(1, 0), source.label(1, 0))
    assert small.label(1, 1) is None
    assert small.videos == source.videos and small.classes == source.classes
    assert np.array_equal(
        resize_frames(source, (12, 16)).image(0, 1), source.image(0, 1)
    )
    with pytest.raises(DataError, match="at least 1"):
        resize_frames(source, (0, 7))


def test_select_orders_videos_and_names_unknown_ones():
    source = Memory()
    selected = select_videos(source, ["b", "a"])
    assert [video.name for video in selected.videos] == ["b", "a"]
    assert np.array_equal(selected.image(0, 1), source.image(1, 1))
    assert np.array_equal(selected.label(1, 2), source.label(0, 2))
    assert selected.videos[0].unlabeled == {1}
    with pytest.raises(DataError) as error:
        select_videos(source, ["a", "c", "a", "d"])
    assert len(error.value.faults) == 3
    assert "'c'" in error.value.faults[0] and "a, b" in error.value.faults[0]


@pytest.mark.parametrize(
    "count, kept", [(1, {("a", 2)}), (2, {("a", 1), ("b", 0)}), (4, None)]
)
def test_labels_are_kept_evenly_over_all_videos(count, kept):
    source = Memory()  # three labels in a, one in b
    few = keep_labels(source, count)
    expected = {(v, f) for v, f in labels_of(source) if kept is None or (v, f) in kept}
    assert labels_of(few) == expected and len(expected) == count
    assert [video.frames for video in few.videos] == [v.frames for v in source.videos]
    for number, video in enumerate(few.videos):
        for frame in range(len(video.frames)):
            assert (frame in video.unlabeled) == (few.label(number, frame) is None)
            assert np.array_equal(few.image(number, frame), source.image(number, frame))


@pytest.mark.parametrize("count", [0, 5])
def test_labels_that_do_not_exist_cannot_be_kept(count):
    with pytest.raises(DataError, match=f"keep {count} labels; the videos have 4"):
        keep_labels(Memory(), count)


def labels_of(source):
    """Returns the names of video and frame of all labels."""
    return {
        (video.name, int(frame))
        for number, video in enumerate(source.videos)
        for frame in video.frames
        if source.label(number, int(frame)) is not None
    }


def test_cached_reads_once_and_returns_labels_at_both_sizes():
    source = Memory()
    cached = cache_frames(source)
    for _ in range(3):
        assert np.array_equal(cached.image(0, 1), Memory().image(0, 1))
        label = cached.label_resized(0, 1)
        assert label is not None and label.shape == (12, 16)
        assert np.array_equal(label[::2, ::2], source.label(0, 1))
    assert source.reads == [(0, 1)]
    assert cached.label(0, 1).shape == (6, 8)
    assert cached.label_resized(1, 1) is None
    with pytest.raises(ValueError, match="read-only"):
        cached.image(0, 1)[0, 0] = 0


def test_cached_returns_one_array_to_all_threads():
    gate = threading.Barrier(8)

    class Slow(Memory):
        def image(self, video, frame):
            gate.wait(timeout=10)
            return super().image(video, frame)

    cached = cache_frames(Slow())
    with ThreadPoolExecutor(8) as threads:
        arrays = list(threads.map(lambda _: cached.image(0, 2), range(8)))
    assert all(array is arrays[0] for array in arrays)


def test_check_collects_the_faults_of_all_frames():
    class Broken(Memory):
        def image(self, video, frame):
            if frame == 1:
                raise DataError([f"image {video} {frame}", "second line"])
            return super().image(video, frame)

        def label(self, video, frame):
            if (video, frame) == (0, 2):
                raise FileNotFoundError("label gone")
            return super().label(video, frame)

    check(Memory())
    with pytest.raises(DataError) as error:
        check(Broken())
    assert error.value.faults == (
        *("image 0 1", "second line", "label gone"),
        *("image 1 1", "second line"),
    )
    assert str(error.value).splitlines() == list(error.value.faults)


def test_data_errors_can_be_passed_between_processes():
    error = copy.copy(DataError(["one", "two"]))
    assert error.faults == ("one", "two") and str(error) == "one\ntwo"
