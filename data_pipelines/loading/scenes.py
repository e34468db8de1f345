"""Rendered scenes beside video: a part of each batch shows random rendered scenes.

A few labeled videos show few tissues, lights and cameras. Rendered scenes
(`data_pipelines.synthetic.variety`) show very many, with exact labels, so a network
that trains on both generalizes better to new video. Tobin et al., "Domain
Randomization", IROS 2017, is the idea; docs/training.md has what it gains here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.frames import IGNORE, ClassInfo, DataError
from data_pipelines.loading.loader import Batch, Batches, ChangedBatches
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.sources.rendered import PART_CLASSES

PARTS = tuple(info.name for info in PART_CLASSES[1:])
"""The rendered parts: shaft, wrist, claspers."""

# Names of classes that contain a part, most specific first, in the singular.
_WHOLE = ("instrument", "tool", "surgical instrument", "surgical tool")
_TIP = ("manipulator", "end effector", "tip", "instrument tip", "tool tip")
_NAMES = {
    "shaft": ("shaft", "instrument shaft", "tool shaft", *_WHOLE),
    "wrist": ("wrist", "instrument wrist", *_TIP, *_WHOLE),
    "claspers": ("clasper", "instrument clasper", "jaw", *_TIP, *_WHOLE),
}


def part_classes(classes: Sequence[ClassInfo]) -> tuple[int, ...]:
    """Finds the classes of the rendered parts by their names.

    Args:
        classes: the classes of a dataset, the background first.

    Returns:
        A class for each of `PARTS`.

    Raises:
        DataError: no name of a class fits a part.
    """
    ids = {_singular(info.name): number for number, info in enumerate(classes)}
    found = [next((ids[n] for n in _NAMES[p] if n in ids), None) for p in PARTS]
    for part, number in zip(PARTS, found, strict=True):
        if number is None:
            names = ", ".join(f"{n} {info.name}" for n, info in enumerate(classes))
            raise DataError(
                [
                    f"data.rendered: no class is named after the {part} of an "
                    f"instrument; the classes are {names}. Pass data.rendered_classes "
                    f"with the classes of {', '.join(PARTS)}, or data.rendered 0"
                ]
            )
    return tuple(number for number in found if number is not None)


def _singular(name: str) -> str:
    words = name.lower().replace("-", " ").replace("_", " ").split()
    return " ".join(words).removesuffix("s")


class WithScenes(ChangedBatches):
    """Batches of a loader whose last rows show rendered scenes instead of videos.

    The batch of a step is a pure function of the two loaders' seeds and the step. In
    rows with a scene, `video` is negative: -1 minus the number of the scene. An epoch
    has as many steps as without scenes.

    Args:
        loader: batches of clips.
        scenes: the scenes; they have as many rows as are replaced, fewer than a batch.
        parts: the class of each of `PARTS` in the labels of `loader`.
    """

    def __init__(self, loader: Batches, scenes: SceneStream, parts: Sequence[int]):
        super().__init__(loader)
        self._scenes = scenes
        self._classes = np.full(256, IGNORE, np.uint8)
        self._classes[: 1 + len(PARTS)] = 0, *parts

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step, see `ClipLoader.batch`."""
        return self._replace(self._loader.batch(step), self._scenes.batch(step))

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yields `batch(step)` for a range of steps."""
        batches = self._loader.iterate(start_step, stop_step)
        scenes = self._scenes.iterate(start_step, stop_step)
        for batch, rendered in zip(batches, scenes, strict=True):
            yield self._replace(batch, rendered)

    def video_name(self, video: int) -> str:
        """Returns the name of a video or scene, given its `video` in a batch."""
        if video < 0:
            return self._scenes.video_name(-1 - video)
        return super().video_name(video)

    def _replace(self, batch: Batch, rendered: Batch) -> Batch:
        rendered = {
            **rendered,
            "label": self._classes[rendered["label"]],
            "video": -1 - rendered["video"],
        }
        first = len(batch["video"]) - len(rendered["video"])
        for name, array in batch.items():
            array[first:] = rendered[name]
        return batch
