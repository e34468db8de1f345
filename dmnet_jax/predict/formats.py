"""The forms in which `predict` writes labels, all of one size: that of the frames."""

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
    """Writes labels, uint8 [H, W], each complete before the next.

    Raises:
        OSError, WriteError: it cannot be written.
    """

    def add(self, name: str, label: np.ndarray) -> None: ...

    def close(self) -> None: ...


def label_writer(
    form: Format,
    folder: Path,
    classes: Sequence[ClassInfo],
    file_names: Mapping[str, str],
) -> LabelWriter:
    """A writer into a folder that exists.

    Args:
        form: png: `masks/NAME.png`, palette index is class; numpy: `masks/NAME.npz`,
            its array "labels"; coco: `annotations.json`; cvat: a folder that CVAT
            imports as "Segmentation mask 1.1".
        folder: for the files.
        classes: background first.
        file_names: of the frames' pictures, by the frames' names (coco); NAME.png if
            a frame has none.

    Raises:
        DataError: an extra that it needs is missing, or a name that it cannot hold.
    """
    if form == "coco":
        return _Coco(folder, classes, file_names)
    if form == "cvat":
        return cvat.Writer(folder, classes)
    return _Masks(folder / "masks", form, classes)


class _Masks:
    """A file a frame."""

    def __init__(self, folder: Path, form: Format, classes: Sequence[ClassInfo]):
        self._folder, self._form = folder, form
        self._colors = [info.color for info in classes]
        folder.mkdir()

    def add(self, name: str, label: np.ndarray) -> None:
        if self._form == "numpy":
            with replacing(self._folder / f"{name}.npz") as path:
                np.savez_compressed(path, labels=label)
        else:
            with replacing(self._folder / f"{name}.png") as path:
                save_indexed_png(path, label, self._colors)

    def close(self) -> None:
        pass


class _Coco(coco.Writer):
    """One file, written at the end; a picture has its file's name."""

    def __init__(
        self, folder: Path, classes: Sequence[ClassInfo], names: Mapping[str, str]
    ) -> None:
        super().__init__(folder, classes)
        self._names = names

    def add(self, name: str, label: np.ndarray) -> None:
        super().add(self._names.get(name, f"{name}.png"), label)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write instead of `path`, put in its place once it is complete."""
    partial = path.with_name(f".partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
