"""Image files to arrays: pictures, masks, their sizes, and what is wrong with them.

Files come from users and networks, so everything that can be wrong with one is an
error that names it: no image, cut short, damaged, huge, too many bits, odd values.
Pictures and masks alike are turned upright where an EXIF orientation tag says so, as
viewers and annotation tools show them.
"""

import io
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from data_pipelines.io.files import check_not_special

IGNORE = 255
"""Label value of a pixel that is neither trained on nor scored."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""Of files, as Pillow calls them; a TIFF has one page."""

MAX_PIXELS = 64_000_000
"""Images with more pixels than this are refused before they are decoded."""

MAX_ASPECT = 16
"""Images longer than so many times their shorter side are refused: letterboxed to a
network's shape they would take more memory than any picture does."""

# What brings a picture with this value of the orientation tag upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags above this turn rows into columns.
_LAST_LEVEL = 4


MAX_FAULTS = 40
"""Faults that the text of a `DataError` shows; the others are counted."""


class DataError(ValueError):
    """Faults in the user's data, each one line of text in `faults`.

    Its text shows the first ones, how many more there are, and the last one, which
    often tells what to do.
    """

    def __init__(self, faults: Iterable[str]):
        self.faults = lines = tuple(faults)
        if len(lines) > MAX_FAULTS:
            more = f"... and {len(lines) - MAX_FAULTS} more faults like these"
            lines = (*lines[: MAX_FAULTS - 1], more, lines[-1])
        super().__init__("\n".join(lines))

    def __reduce__(self):
        return type(self), (self.faults,)


def size_fault(height: int, width: int, max_pixels: int = MAX_PIXELS) -> str:
    """What is wrong with the size of an image, in words; empty if nothing is.

    For whatever is about to be allocated or decoded: pictures, frames of a video,
    labels.
    """
    short, long = sorted((height, width))
    if short < 1:
        return f"{width}x{height} (width x height) holds no pixel"
    if height * width > max_pixels:
        return (
            f"{width}x{height} (width x height) is more than {max_pixels / 1e6:g} "
            "million pixels; make it smaller"
        )
    if long > MAX_ASPECT * short:
        return (
            f"{width}x{height} (width x height) is more than {MAX_ASPECT} times as "
            "long as it is short; cut it"
        )
    return ""


def read_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) from an image's header, without decoding its pixels.

    Of the upright image, as `read_image` gives it.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is none of `FORMATS`, has more than 8 bits a channel, or
            `size_fault` finds a fault.
    """
    with _open(path, max_pixels) as image:
        _check_depth(image, path)
        height, width = image.height, image.width
        on_side = _orientation(image) > _LAST_LEVEL
        return (width, height) if on_side else (height, width)


def has_orientation_tag(path: str | Path) -> bool:
    """Whether an EXIF tag turns or mirrors the image; False if it cannot be read."""
    try:
        with _open(path, MAX_PIXELS) as image:
            return _orientation(image) in _UPRIGHT
    except (OSError, DataError):
        return False


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image of one of `FORMATS` to uint8 `[H, W, 3]` RGB, upright.

    An alpha channel is dropped; an EXIF orientation tag is applied.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be decoded, is cut short, has more than 8 bits a channel,
            or `size_fault` finds a fault.
    """
    with _open(path, max_pixels) as image:
        _check_depth(image, path)
        return _decoded(image, path, "RGB")


def read_gray(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a mask to its stored values, uint8 `[H, W]`, upright.

    A palette image gives its indices, a grey one its values, an RGB one its value where
    the three channels agree everywhere.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: its format loses values (JPEG), it cannot be decoded, has more than 8
            bits a channel, or its pixels are not single values.
    """
    with _open(path, max_pixels) as image:
        _check_lossless(image, path)
        # Pillow stretches 2- and 4-bit grey to 0..255, which would turn class 3 of a
        # 2-bit mask into IGNORE.
        if _raw_mode(image).startswith(("L;2", "L;4")):
            raise DataError([f"{path}: a 2- or 4-bit grey mask; save it as 8-bit"])
        _check_depth(image, path)
        if image.mode in ("P", "L"):
            return _decoded(image, path, image.mode)
        if image.mode == "1":
            return _decoded(image, path, "1").astype(np.uint8)
        if image.mode not in ("RGB", "RGBA", "LA"):
            raise DataError(
                [f"{path}: {image.mode} mask; save it as 8-bit grey or palette PNG"]
            )
        rgb = _decoded(image, path, "RGB")
    differs = (rgb != rgb[..., :1]).any(axis=-1)
    if differs.any():
        row, column = np.unravel_index(differs.argmax(), differs.shape)
        raise DataError(
            [
                f"{path}: colour {tuple(rgb[row, column].tolist())} at row {row}, "
                f"column {column} is no class index; save the mask as grey or palette "
                "PNG whose value is the class"
            ]
        )
    return np.ascontiguousarray(rgb[..., 0])


def read_mask_colors(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a mask to its colors, uint8 `[H, W, 3]` RGB, upright.

    Raises:
        FileNotFoundError, DataError: as `read_image`; also for a JPEG.
    """
    with _open(path, max_pixels) as image:
        _check_lossless(image, path)
    return read_image(path, max_pixels)


def decode(data: bytes, name: str, mode: str) -> np.ndarray:
    """Decodes the bytes of a PNG or JPEG as they are stored, whatever its tags say.

    Args:
        data: the file's bytes.
        name: what errors call it.
        mode: "RGB" for uint8 `[H, W, 3]`, "L" for uint8 `[H, W]`.

    Raises:
        DataError: as `read_image`.
    """
    with _open(name, MAX_PIXELS, data, ("PNG", "JPEG")) as image:
        _check_depth(image, name)
        image.info.clear()
        return _decoded(image, name, mode)


def read_label(
    path: str | Path,
    num_classes: int,
    ignore: Sequence[int] = (),
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads a mask whose values are class indices, uint8 `[h, w]`.

    Args:
        path: palette or grey image.
        num_classes: C; allowed values are 0..C-1 and `IGNORE`.
        ignore: values that become `IGNORE`.
        max_pixels: as in `read_image`.

    Raises:
        FileNotFoundError, DataError: as `read_gray`, and for a value that is not
            allowed.
    """
    table = np.arange(256, dtype=np.uint8)
    table[list(ignore)] = IGNORE
    stored = read_gray(path, max_pixels)
    label = table[stored]
    wrong = (label >= num_classes) & (label != IGNORE)
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        raise DataError(
            [
                f"{path}: mask value {stored[row, column]} at row {row}, column "
                f"{column} is not a class (0..{num_classes - 1}, or {IGNORE} for not "
                "scored); mend the mask or list the class"
            ]
        )
    return label


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image uint8 `[h, w, 3]` at `size` (H, W): bilinear, antialiased when reducing."""
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    picture = Image.fromarray(image)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Label `[h, w]` at `size` (H, W): the value under each new pixel's centre."""
    if label.shape == tuple(size):
        return label
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, label.shape, strict=True)
    )
    return label[rows[:, None], columns]


def difference_hash(image: np.ndarray) -> str:
    """256 bits that change little when a picture is coded or scaled anew.

    A bit tells whether the grey level rises between neighbours in a row, at 16x17.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        64 hexadecimal digits.
    """
    grey = Image.fromarray(image).convert("L").resize((17, 16), Image.Resampling.BOX)
    levels = np.array(grey, np.int16)
    return np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes().hex()


def _open(
    path: str | Path,
    max_pixels: int,
    data: bytes | None = None,
    formats: tuple[str, ...] = FORMATS,
) -> ImageFile.ImageFile:
    try:
        if data is None:
            check_not_special(path)
        file = path if data is None else io.BytesIO(data)
        image = Image.open(file, formats=formats)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = f"{max_pixels / 1e6:g} million pixels"
        raise DataError([f"{path}: more than {most}; make it smaller"]) from None
    except _UNREADABLE as error:
        names = " or ".join(formats)
        raise DataError([f"{path}: not a readable {names} ({error})"]) from error
    fault = size_fault(image.height, image.width, max_pixels)
    if image.format == "TIFF":
        # With a name Pillow maps plain pixels into memory, and forgets to turn them.
        image.filename = ""
    if image.format == "TIFF" and getattr(image, "is_animated", False):
        fault = "a TIFF of several pages; save each page as a picture of its own"
    if fault:
        image.close()
        raise DataError([f"{path}: {fault}"])
    return image


# Pillow has no error of its own for what a damaged file can lead to.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    TypeError,
    struct.error,
)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How a PNG's pixels are stored, such as "RGB;16B"."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    return args if isinstance(args, str) else str((args or ("",))[0])


def _check_lossless(image: ImageFile.ImageFile, path: str | Path) -> None:
    if image.format == "JPEG" or image.info.get("compression") == "jpeg":
        raise DataError(
            [f"{path}: a {image.format} mask blurs its values; save it as PNG"]
        )


def _check_depth(image: ImageFile.ImageFile, path: str | Path) -> None:
    # Of 16-bit colours Pillow keeps the upper half without a word: 10 bits of a camera
    # become 0..3, a mask's classes all become 0.
    if image.mode[0] in "IF" or "16" in _raw_mode(image):
        raise DataError([f"{path}: 16 bits a channel, 8 are wanted; save it as 8-bit"])


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8, of what was read of the file so far."""
    # The image's own method would remember an answer, and of a PNG decode the pixels.
    # A TIFF has no tags in `info`: Pillow turns it by itself, its size too.
    probe = Image.new("1", (1, 1))
    probe.info = image.info
    try:
        value = probe.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in _UPRIGHT else 1
    except _UNREADABLE:
        return 1  # Viewers, too, show a picture whose tags are damaged as stored.


def _decoded(image: ImageFile.ImageFile, path: str | Path, mode: str) -> np.ndarray:
    orientation = _orientation(image)
    try:
        image.load()
        picture = image if image.mode == mode else image.convert(mode)
        if orientation in _UPRIGHT:
            picture = picture.transpose(_UPRIGHT[orientation])
        array = np.array(picture)
    except _UNREADABLE as error:
        raise DataError(
            [f"{path}: damaged or cut short ({error}); replace the file"]
        ) from error
    if _orientation(image) != orientation:
        raise DataError(
            [f"{path}: its EXIF orientation tag follows the pixels; save it anew"]
        )
    return array
