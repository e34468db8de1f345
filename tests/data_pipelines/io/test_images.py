"""Images and masks as written by cameras, phones and macOS."""

import os
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from data_pipelines.frames import DataError, check, read_gray, read_image, read_size
from data_pipelines.io.images import MAX_ASPECT, size_fault
from data_pipelines.io.pairs import list_files
from data_pipelines.prepare import Request
from data_pipelines.prepare.survey import open_checked
from data_pipelines.sources.folder import open_folder

# Color type in the PNG header, samples per pixel.
COLOR_TYPES = {"gray": (0, 1), "rgb": (2, 3), "gray+alpha": (4, 2), "rgba": (6, 4)}


def write_png(path, pixels, color_type, depth, late=b""):
    """Writes a PNG; Pillow writes neither 16-bit colors nor chunks after the data."""
    rows = pixels.astype(">u2" if depth == 16 else np.uint8)
    height, width = rows.shape[:2]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header + bytes([depth, color_type, 0, 0, 0])), (b"IDAT", data)]
    if late:
        chunks.append((b"eXIf", late))
    text = b"\x89PNG\r\n\x1a\n"
    for name, body in [*chunks, (b"IEND", b"")]:
        crc = zlib.crc32(name + body).to_bytes(4, "big")
        text += len(body).to_bytes(4, "big") + name + body + crc
    path.write_bytes(text)


def oriented(tag):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    return exif


def stored_as(upright, tag):
    """Returns the pixels as stored by a camera that writes the orientation `tag`."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[tag](upright))


@pytest.mark.parametrize("kind", COLOR_TYPES)
@pytest.mark.parametrize("highest", [1, 3, 1023, 65535])
def test_16_bits_per_channel_are_refused_in_every_color_type(tmp_path, kind, highest):
    color_type, samples = COLOR_TYPES[kind]
    pixels = np.full((6, 8, samples), highest)
    pixels[:3] = 0
    write_png(tmp_path / "deep.png", pixels, color_type, 16)
    for read in (read_size, read_image, read_gray):
        with pytest.raises(DataError, match=r"deep\.png: 16 bits .* 8-bit"):
            read(tmp_path / "deep.png")
    write_png(tmp_path / "usual.png", pixels.clip(0, 9), color_type, 8)
    assert np.array_equal(read_gray(tmp_path / "usual.png"), pixels.clip(0, 9)[..., 0])


@pytest.mark.parametrize("tag", range(1, 9))
def test_frames_and_masks_are_rotated_upright(tmp_path, tag):
    rng = np.random.default_rng(tag)
    blocks = rng.integers(0, 256, (3, 4, 3), np.uint8)
    upright = blocks.repeat(16, 0).repeat(16, 1)
    mask = rng.integers(0, 3, (48, 64), np.uint8)
    for suffix in ("png", "jpg"):
        path = tmp_path / f"a.{suffix}"
        picture = Image.fromarray(stored_as(upright, tag))
        picture.save(path, exif=oriented(tag), quality=95)
        assert read_size(path) == (48, 64)
        assert np.abs(read_image(path).astype(int) - upright).mean() < 8
    Image.fromarray(stored_as(mask, tag)).save(tmp_path / "m.png", exif=oriented(tag))
    assert np.array_equal(read_gray(tmp_path / "m.png"), mask)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_tag_after_the_pixels_is_refused_and_a_damaged_one_ignored(tmp_path):
    pixels = np.arange(36).reshape(4, 9, 1)
    late = oriented(3).tobytes().removeprefix(b"Exif\0\0")
    write_png(tmp_path / "late.png", pixels, 0, 8, late)
    with pytest.raises(DataError, match=r"late\.png: the EXIF orientation"):
        read_image(tmp_path / "late.png")
    picture = Image.fromarray(pixels[..., 0].astype(np.uint8))
    picture.save(tmp_path / "bad.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(read_gray(tmp_path / "bad.png"), pixels[..., 0])


def test_a_size_mismatch_due_to_exif_is_explained(tmp_path):
    for kind in ("frames", "masks"):
        (tmp_path / "v" / kind).mkdir(parents=True)
    picture = Image.new("RGB", (64, 48))
    picture.save(tmp_path / "v" / "frames" / "0.jpg", exif=oriented(6))
    Image.new("L", (64, 48)).save(tmp_path / "v" / "masks" / "0.png")
    with pytest.raises(DataError, match="EXIF orientation"):
        open_folder(tmp_path)


@pytest.mark.parametrize("size", [(1, 30000), (30000, 1), (20000, 4), (1, 20000)])
def test_long_strips_are_refused_by_their_header(tmp_path, size):
    height, width = size
    path = tmp_path / "strip.png"
    write_png(path, np.zeros((1, width, 1)), 0, 8)
    data = bytearray(path.read_bytes())
    data[20:24] = height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    for read in (read_size, read_image, read_gray):
        with pytest.raises(DataError, match=rf"strip\.png: {width}x{height} .* times"):
            read(path)


def test_size_faults():
    assert not size_fault(1080, 1920) and not size_fault(1, MAX_ASPECT)
    assert "no pixel" in size_fault(0, 7)
    assert "times" in size_fault(1, MAX_ASPECT + 1)
    assert "64 million" in size_fault(16000, 16000)


def test_files_that_macos_adds_are_ignored(tmp_path):
    for kind in ("frames", "masks"):
        (tmp_path / "v" / kind).mkdir(parents=True)
        Image.new("L", (9, 8)).save(tmp_path / "v" / kind / "0.png")
        (tmp_path / "v" / kind / "._0.png").write_bytes(b"\0\5\x16\7")
        (tmp_path / "v" / kind / ".DS_Store").touch()
        (tmp_path / "v" / kind / "folder.png").mkdir()
    for name in ("__MACOSX", ".hidden"):
        (tmp_path / name / "frames").mkdir(parents=True)
        (tmp_path / name / "frames" / "._0.png").write_bytes(b"\0\5\x16\7")
    frames = tmp_path / "v" / "frames"
    assert list_files(frames) == [frames / "0.png"]
    source = open_folder(tmp_path)
    assert [video.name for video in source.videos] == ["v"]
    check(source)
    request = Request("folder", masks="masks", size=None)
    assert open_checked(tmp_path, request).videos == source.videos


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", None])
def test_an_empty_or_truncated_image_is_named(tmp_path, content):
    for kind in ("frames", "masks"):
        (tmp_path / "v" / kind).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for index in range(3):
        Image.fromarray(pixels).save(tmp_path / "v" / "frames" / f"{index}.jpg")
        Image.new("L", (64, 64)).save(tmp_path / "v" / "masks" / f"{index}.png")
    path = tmp_path / "v" / "frames" / "1.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if content is None else content)
    with pytest.raises(DataError, match=r"1\.jpg"):
        check(open_folder(tmp_path))


def test_a_broken_link_is_named(tmp_path):
    for kind in ("frames", "masks"):
        (tmp_path / "v" / kind).mkdir(parents=True)
        Image.new("L", (9, 8)).save(tmp_path / "v" / kind / "0.png")
    (tmp_path / "v" / "masks" / "0.png").unlink()
    (tmp_path / "v" / "masks" / "0.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"masks/0\.png: no such file"):
        open_folder(tmp_path)


def test_a_pipe_instead_of_an_image_is_refused_immediately(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0\.png: .*pipe or device"):
        read_image(tmp_path / "0.png")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("tag", [1, 3, 6])
def test_a_tiff_is_read_upright(tmp_path, tag, compression):
    upright = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    path, mask = tmp_path / "a.tif", tmp_path / "m.tiff"
    options = {"compression": compression, "tiffinfo": {274: tag}}
    Image.fromarray(stored_as(upright, tag)).save(path, **options)
    assert read_size(path) == (5, 8)
    np.testing.assert_array_equal(read_image(path), upright)
    Image.fromarray(stored_as(upright[..., 0], tag)).save(mask, **options)
    np.testing.assert_array_equal(read_gray(mask), upright[..., 0])


def test_a_bmp_is_read_as_stored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    for array in (pixels, pixels[..., 0], pixels[..., 0] > 99):
        Image.fromarray(array).save(tmp_path / "a.bmp")
        read = read_image if array.ndim == 3 else read_gray
        np.testing.assert_array_equal(read(tmp_path / "a.bmp"), array)


def test_a_tiff_that_would_lose_data_is_refused(tmp_path):
    pages = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    Image.new("L", (4, 3)).save(tmp_path / "lossy.tif", compression="jpeg")
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match="pages.tif: a TIFF of several pages"):
        read_image(tmp_path / "pages.tif")
    with pytest.raises(DataError, match="lossy.tif: a TIFF mask is lossy"):
        read_gray(tmp_path / "lossy.tif")
    for read in (read_image, read_gray, read_size):
        with pytest.raises(DataError, match="deep.tif: 16 bits per channel"):
            read(tmp_path / "deep.tif")


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")  # also raised by Pillow
def test_a_truncated_tiff_is_named(tmp_path):
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    for share in (0.001, 0.5, 0.9):
        original = path.read_bytes()
        (tmp_path / "cut.tif").write_bytes(original[: int(share * len(original))])
        with pytest.raises(DataError, match=r"cut\.tif"):
            read_image(tmp_path / "cut.tif")
