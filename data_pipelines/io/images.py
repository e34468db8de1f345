"""Reads images and masks to arrays, and resizes them.

Files are untrusted: a file that is not an image, truncated, damaged, too large, of more
than 8 bits per channel, or with invalid mask values raises an error that names it. The
EXIF orientation tag is applied to images and masks, as viewers and annotation tools do.
"""

import io
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from data_pipelines.io.files import check_not_special

IGNORE = 255
"""Label value of pixels that are neither trained on nor scored."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""Supported formats, by Pillow's names. A TIFF must have one page."""

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded."""

MAX_ASPECT = 16
"""Maximum ratio of the longer to the shorter side of an image.

Letterboxed to a network's input shape, a narrower image would need too much memory.
"""

# The transposition that turns an image with this orientation tag upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientation tags above this value swap rows and columns.
_LAST_UNSWAPPED = 4


MAX_FAULTS = 40
"""Maximum number of lines in the message of a `DataError`; the rest are counted."""


class DataError(ValueError):
    """Errors in the user's data.

    The message has the first lines of `faults`, the number of omitted lines, and the
    last line, which often says what to do.

    Attributes:
        faults: one error message per line of the report.
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
    """Returns why an image of this size is refused, or "" if it is accepted.

    Called before images, video frames or labels are allocated or decoded.
    """
    short, long = sorted((height, width))
    if short < 1:
        return f"{width}x{height} (width x height) contains no pixel"
    if height * width > max_pixels:
        return (
            f"{width}x{height} (width x height) is more than {max_pixels / 1e6:g} "
            "million pixels; reduce it"
        )
    if long > MAX_ASPECT * short:
        return (
            f"{width}x{height} (width x height): the longer side is more than "
            f"{MAX_ASPECT} times the shorter one; crop it"
        )
    return ""


def read_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Reads (height, width) from an image's header, without decoding pixels.

    The size is that of the upright image, as returned by `read_image`.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file is not one of `FORMATS`, has more than 8 bits per channel,
            or its size is refused (see `size_fault`).
    """
    with _open(path, max_pixels) as image:
        _check_depth(image, path)
        height, width = image.height, image.width
        swapped = _orientation(image) > _LAST_UNSWAPPED
        return (width, height) if swapped else (height, width)


def has_orientation_tag(path: str | Path) -> bool:
    """Returns whether an EXIF tag rotates or mirrors a file; False if unreadable."""
    try:
        with _open(path, MAX_PIXELS) as image:
            return _orientation(image) in _UPRIGHT
    except (OSError, DataError):
        return False


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image to uint8 `[H, W, 3]` RGB, upright.

    An alpha channel is dropped; the EXIF orientation tag is applied.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file is not one of `FORMATS`, is damaged or truncated, has more
            than 8 bits per channel, or its size is refused (see `size_fault`).
    """
    with _open(path, max_pixels) as image:
        _check_depth(image, path)
        return _decode(image, path, "RGB")


def read_gray(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a mask to its stored values, uint8 `[H, W]`, upright.

    The values are the indices of a palette image, the levels of a grayscale image, or
    the common value of the three channels of an RGB image.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the format is lossy (JPEG), the file is damaged or truncated, has
            more than 8 bits per channel, or the channels of an RGB image differ.
    """
    with _open(path, max_pixels) as image:
        _check_lossless(image, path)
        # Pillow scales 2- and 4-bit gray to 0..255, which would turn class 3 of a 2-bit
        # mask into IGNORE.
        if _raw_mode(image).startswith(("L;2", "L;4")):
            raise DataError([f"{path}: a 2- or 4-bit gray mask; save it as 8-bit"])
        _check_depth(image, path)
        if image.mode in ("P", "L"):
            return _decode(image, path, image.mode)
        if image.mode == "1":
            return _decode(image, path, "1").astype(np.uint8)
        if image.mode not in ("RGB", "RGBA", "LA"):
            raise DataError(
                [f"{path}: {image.mode} mask; save it as 8-bit gray or palette PNG"]
            )
        rgb = _decode(image, path, "RGB")
    differs = (rgb != rgb[..., :1]).any(axis=-1)
    if differs.any():
        row, column = first_pixel(differs)
        raise DataError(
            [
                f"{path}: color {tuple(rgb[row, column].tolist())} at row {row}, "
                f"column {column} is not a class index; save the mask as gray or "
                "palette PNG whose values are classes"
            ]
        )
    return np.ascontiguousarray(rgb[..., 0])


def first_pixel(where: np.ndarray) -> tuple[int, int]:
    """Returns (row, column) of the first True pixel of a bool array `[H, W]`."""
    row, column = np.unravel_index(where.argmax(), where.shape)
    return int(row), int(column)


def read_mask_colors(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a mask to its colors, uint8 `[H, W, 3]` RGB, upright.

    Raises:
        FileNotFoundError, DataError: as for `read_image`; also if the format is lossy.
    """
    with _open(path, max_pixels) as image:
        _check_lossless(image, path)
    return read_image(path, max_pixels)


def decode(data: bytes, name: str, mode: str) -> np.ndarray:
    """Decodes the bytes of a PNG or JPEG without applying an orientation tag.

    Args:
        data: contents of the file.
        name: name for error messages.
        mode: "RGB" for uint8 `[H, W, 3]`, "L" for uint8 `[H, W]`.

    Raises:
        DataError: as for `read_image`.
    """
    with _open(name, MAX_PIXELS, data, ("PNG", "JPEG")) as image:
        _check_depth(image, name)
        image.info.clear()
        return _decode(image, name, mode)


def read_label(
    path: str | Path,
    num_classes: int,
    ignore: Sequence[int] = (),
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads a mask whose values are class indices, uint8 `[h, w]`.

    Args:
        path: palette or grayscale image.
        num_classes: C; allowed values are 0..C-1 and `IGNORE`.
        ignore: values that are replaced by `IGNORE`.
        max_pixels: maximum number of pixels.

    Raises:
        FileNotFoundError, DataError: as for `read_gray`; also if a value is not
            allowed.
    """
    table = np.arange(256, dtype=np.uint8)
    table[list(ignore)] = IGNORE
    stored = read_gray(path, max_pixels)
    label = table[stored]
    invalid = (label >= num_classes) & (label != IGNORE)
    if invalid.any():
        row, column = first_pixel(invalid)
        raise DataError(
            [
                f"{path}: mask value {stored[row, column]} at row {row}, column "
                f"{column} is not a class (0..{num_classes - 1}, or {IGNORE} for not "
                "scored); correct the mask or list the class"
            ]
        )
    return label


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image uint8 `[h, w, 3]` to (H, W), bilinear, with antialiasing."""
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    picture = Image.fromarray(image)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a label `[h, w]` to (H, W): the value under each new pixel's center."""
    if label.shape == tuple(size):
        return label
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, label.shape, strict=True)
    )
    return label[rows[:, None], columns]


def difference_hash(image: np.ndarray) -> str:
    """Computes a perceptual hash that is robust to re-encoding and rescaling.

    Each of the 256 bits says whether the gray level increases between two horizontal
    neighbors, at a resolution of 16x17.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        64 hexadecimal digits.
    """
    gray = Image.fromarray(image).convert("L").resize((17, 16), Image.Resampling.BOX)
    levels = np.array(gray, np.int16)
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
        limit = f"{max_pixels / 1e6:g} million pixels"
        raise DataError([f"{path}: more than {limit}; reduce it"]) from None
    except _UNREADABLE as error:
        names = " or ".join(formats)
        raise DataError([f"{path}: not a readable {names} ({error})"]) from error
    fault = size_fault(image.height, image.width, max_pixels)
    if image.format == "TIFF":
        # Given a file name, Pillow memory-maps uncompressed pixels and does not apply
        # the orientation tag to them.
        image.filename = ""
    if image.format == "TIFF" and getattr(image, "is_animated", False):
        fault = "a TIFF of several pages; save each page as a separate file"
    if fault:
        image.close()
        raise DataError([f"{path}: {fault}"])
    return image


# Pillow raises any of these for a damaged file.
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
    """Returns Pillow's name of the stored pixel format, such as "RGB;16B"."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    return args if isinstance(args, str) else str((args or ("",))[0])


def _check_lossless(image: ImageFile.ImageFile, path: str | Path) -> None:
    if image.format == "JPEG" or image.info.get("compression") == "jpeg":
        raise DataError([f"{path}: a {image.format} mask is lossy; save it as PNG"])


def _check_depth(image: ImageFile.ImageFile, path: str | Path) -> None:
    # Pillow silently keeps only the upper byte of 16-bit channels: 10-bit camera values
    # become 0..3, and all classes of a mask become 0.
    if image.mode[0] in "IF" or "16" in _raw_mode(image):
        raise DataError([f"{path}: 16 bits per channel; save it as 8-bit"])


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 (upright) to 8, read from the file so far."""
    # The image's own getexif caches its result and, for a PNG, decodes the pixels.
    # A TIFF has no tags in `info`: Pillow rotates it itself, including its size.
    probe = Image.new("1", (1, 1))
    probe.info = image.info
    try:
        value = probe.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in _UPRIGHT else 1
    except _UNREADABLE:
        return 1  # Viewers also ignore damaged tags.


def _decode(image: ImageFile.ImageFile, path: str | Path, mode: str) -> np.ndarray:
    orientation = _orientation(image)
    try:
        image.load()
        picture = image if image.mode == mode else image.convert(mode)
        if orientation in _UPRIGHT:
            picture = picture.transpose(_UPRIGHT[orientation])
        array = np.array(picture)
    except _UNREADABLE as error:
        raise DataError(
            [f"{path}: damaged or truncated ({error}); replace the file"]
        ) from error
    if _orientation(image) != orientation:
        raise DataError(
            [f"{path}: the EXIF orientation tag is after the pixels; save it again"]
        )
    return array
