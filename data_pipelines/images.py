"""Image files to arrays: pictures, masks, their sizes, and what is wrong with them.

Files come from users and networks, so everything that can be wrong with one is an
error that names it: no image, cut short, damaged, huge, too many bits, odd values.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

IGNORE = 255
"""Label value of a pixel that is neither trained on nor scored."""

MAX_PIXELS = 64_000_000
"""Images with more pixels than this are refused before they are decoded."""


class DataError(ValueError):
    """Faults in the user's data, each one line of text in `faults`."""

    def __init__(self, faults: Iterable[str]):
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self):
        return type(self), (self.faults,)


def read_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) from the header of a PNG or JPEG, without decoding its pixels.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: it is no PNG or JPEG, or has more than `max_pixels` pixels.
    """
    with _open(path, max_pixels) as image:
        return image.height, image.width


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a PNG or JPEG to uint8 `[H, W, 3]` RGB.

    An alpha channel is dropped; an orientation tag is not applied, since masks are
    drawn over the stored pixels.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: it cannot be decoded, is cut short, has more than `max_pixels` pixels
        or more than 8 bits a channel.
    """
    with _open(path, max_pixels) as image:
        if image.mode[0] in "IF":
            raise DataError(
                [f"{path}: {image.mode} pixels, 8-bit ones wanted; save it as 8-bit"]
            )
        return _decoded(image, path, "RGB")


def read_grey(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a mask PNG to its stored values, uint8 `[H, W]`.

    A palette PNG gives its indices, a grey one its values, an RGB one its value where
    the three channels agree everywhere.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: it is no PNG, cannot be decoded, or its pixels are not single values.
    """
    with _open(path, max_pixels) as image:
        if image.format != "PNG":
            raise DataError(
                [f"{path}: a {image.format} mask blurs its values; save it as PNG"]
            )
        # Pillow stretches 2- and 4-bit grey to 0..255, which would turn class 3 of a
        # 2-bit mask into IGNORE.
        if image.tile and str(image.tile[0].args).startswith(("L;2", "L;4")):
            raise DataError([f"{path}: a 2- or 4-bit grey mask; save it as 8-bit"])
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


def read_label(
    path: str | Path,
    num_classes: int,
    ignore: Sequence[int] = (),
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads a mask whose values are class indices, uint8 `[h, w]`.

    Args:
      path: palette or grey PNG.
      num_classes: C; allowed values are 0..C-1 and `IGNORE`.
      ignore: values that become `IGNORE`.
      max_pixels: as in `read_image`.

    Raises:
      FileNotFoundError, DataError: as `read_grey`, and for a value that is not allowed.
    """
    table = np.arange(256, dtype=np.uint8)
    table[list(ignore)] = IGNORE
    stored = read_grey(path, max_pixels)
    label = table[stored]
    wrong = (label >= num_classes) & (label != IGNORE)
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        raise DataError(
            [
                f"{path}: mask value {stored[row, column]} at row {row}, column "
                f"{column} is not a class (0..{num_classes - 1}, or {IGNORE} for not "
                "scored); mend the mask, list the class, or ignore the value"
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


def _open(path: str | Path, max_pixels: int) -> ImageFile.ImageFile:
    try:
        image = Image.open(path, formats=("PNG", "JPEG"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError([_too_large(path, max_pixels)]) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError([f"{path}: not a readable PNG or JPEG ({error})"]) from error
    if image.width * image.height > max_pixels:
        image.close()
        raise DataError([_too_large(path, max_pixels)])
    return image


def _too_large(path: str | Path, max_pixels: int) -> str:
    return f"{path}: more than {max_pixels / 1e6:g} million pixels; make it smaller"


def _decoded(image: Image.Image, path: str | Path, mode: str) -> np.ndarray:
    try:
        return np.array(image if image.mode == mode else image.convert(mode))
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise DataError(
            [f"{path}: damaged or cut short ({error}); replace the file"]
        ) from error
