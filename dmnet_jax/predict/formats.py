"""Writers for label maps at the size of the frames, in several formats."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from data_pipelines.annotations import coco, cvat
from data_pipelines.frames import ClassInfo
from dmnet_jax.video.overlay import save_indexed_png

Format = Literal["png", "coco", "cvat", "numpy"]
FORMATS: tuple[Format, ...] = get_args(Format)


class LabelWriter(Protocol):
    """Writes label maps, uint8 [H, W]; each is complete before the next is added.

    Raises:
        OSError, WriteError: writing failed.
    """

    def add(self, name: str, label: np.ndarray) -> None:
        """Adds the labels of the frame `name`."""
        ...

    def close(self) -> None:
        """Completes the files."""
        ...


def label_writer(
    form: Format,
    folder: Path,
    classes: Sequence[ClassInfo],
    file_names: Mapping[str, str],
) -> LabelWriter:
    """Creates a writer for a format.

    Args:
        form: "png": `masks/NAME.png`, where the palette index is the class; "numpy":
            `masks/NAME.npz` with the array "labels"; "coco": `annotations.json`;
            "cvat": a folder that CVAT imports as "Segmentation mask 1.1".
        folder: existing folder to write to.
        classes: the classes, background first.
        file_names: names of the frames' image files by name of the frame ("coco"); for
            other frames NAME.png.

    Raises:
        DataError: an extra is not installed, or the format does not support the name of
            a class.
    """
    if form == "coco":
        return _Coco(folder, classes, file_names)
    if form == "cvat":
        return cvat.Writer(folder, classes)
    return _Masks(folder / "masks", form, classes)


class _Masks:
    """Writes one file per frame."""

    def __init__(self, folder: Path, form: Format, classes: Sequence[ClassInfo]):
        self._folder, self._form = folder, form
        self._colors = [info.color for info in classes]
        folder.mkdir()

    def add(self, name: str, label: np.ndarray) -> None:
        if self._form == "numpy":
            with atomic_write(self._folder / f"{name}.npz") as path:
                np.savez_compressed(path, labels=label)
        else:
            with atomic_write(self._folder / f"{name}.png") as path:
                save_indexed_png(path, label, self._colors)

    def close(self) -> None:
        pass


class _Coco(coco.Writer):
    """Writes one COCO file at the end, with the names of the image files."""

    def __init__(
        self, folder: Path, classes: Sequence[ClassInfo], names: Mapping[str, str]
    ) -> None:
        super().__init__(folder, classes)
        self._names = names

    def add(self, name: str, label: np.ndarray) -> None:
        super().add(self._names.get(name, f"{name}.png"), label)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which replaces `path` once the file is complete."""
    partial = path.with_name(f".partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
