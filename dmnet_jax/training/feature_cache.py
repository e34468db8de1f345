"""A cache of encoded frames on disk, for stages with a frozen encoder.

A training clip of the paper has nine frames. With a frozen encoder, the same frames
would be encoded again in every clip and epoch. The cache encodes each frame once under
each of a few fixed augmentations ("views") and builds clips from the results. They are
the clips that `ClipLoader` draws, except for their augmentation. A view may also have
corrupted versions, from which sequences take bursts of corrupted frames.
"""

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.corruption import Corruption, corrupt_layers, draw_layers
from data_pipelines.frames import IGNORE
from data_pipelines.io.files import as_write_error, make_folder
from data_pipelines.loading.clips import sample_clip
from data_pipelines.loading.loader import Batch, ClipLoader
from data_pipelines.synthetic.fields import generator
from dmnet_jax.models.clips import decode_frames
from dmnet_jax.models.features import DECODED, FEATURES
from dmnet_jax.training.stages import Stage

# Number of frames encoded per call.
_CHUNK = 8
# Bits that separate the random streams of views and of corruptions.
_VIEW_STREAM, _CORRUPTION_STREAM = 1 << 62, 3 << 61
# Number of consecutive frames of a corrupted version with the same corruption.
_BURST = 6


@contextmanager
def cache_features(
    stage: Stage,
    folder: Path,
    model: Any,
    variables: Any,
    log: Callable[[str], None],
    on_chunk: Callable[[], None] = lambda: None,
) -> Iterator[Stage]:
    """Encodes the frames of a stage with `cached_views`; other stages are unchanged.

    Args:
        stage: a stage of the run.
        folder: folder for the features; deleted on exit.
        model: the network.
        variables: its variables.
        log: called with one line per video.
        on_chunk: called after every few frames; may raise to stop.

    Yields:
        The stage with a loader and a recipe for encoded frames.
    """
    if not stage.cached_views:
        yield stage
        return
    assert isinstance(stage.loader, ClipLoader)  # config validation ensures this
    cache = (SequenceCache if stage.recipe == "rollout" else FeatureCache)(
        folder,
        stage.loader,
        views=stage.cached_views,
        corrupted=stage.corrupted_views,
        model=model,
        variables=jax.device_get(variables),
        log=log,
        on_chunk=on_chunk,
    )
    try:
        yield dataclasses.replace(stage, loader=cache, recipe=cache.recipe)
    finally:
        cache.remove()


class CachedForm(NamedTuple):
    """The form in which a cache stores frames.

    Attributes:
        recipe: forward function of its batches, a key of `models.forward.FORWARD`.
        names: names of the stored maps.
        method: method of the network that computes them.
        dtype: their dtype; None for the network's.
    """

    recipe: Any
    names: tuple[str, ...]
    method: Any
    dtype: Any


def cached_form(recipe: str, model: Any) -> CachedForm:
    """Returns the form in which frames are cached for a network.

    Args:
        recipe: recipe of the stage, "clip" or "rollout".
        model: the network.
    """
    if recipe == "clip":
        return CachedForm("features", FEATURES, "encode", None)
    if model.only_corrects:
        names = tuple(name for name in DECODED if name != "fine" or model.stores_masks)
        return CachedForm("decoded_sequences", names, decode_frames, np.float16)
    return CachedForm("sequences", FEATURES, "encode", np.float16)


class FeatureCache:
    """Loads batches of encoded clips; has the interface of a `ClipLoader`.

    Args:
        folder: folder for the features; emptied first. A frame and view take 0.9 MB
            at 256x320 in float32, 3.7 MB at 512x640.
        loader: loader of the clips; its augmentation defines the views. All frames of
            a video share one augmentation in a view, so motion is preserved. The first
            view is not augmented.
        views: number of views.
        model: the network that encodes the frames.
        variables: its variables, including the running statistics of batch norm.
        log: called with one line per video.
        corrupted: number of versions of each view that are corrupted, by the loader's
            kinds of corruption.
        on_chunk: called after every few frames; may raise to stop, which deletes the
            folder.
    """

    stage_recipe = "clip"

    def __init__(
        self,
        folder: Path,
        loader: ClipLoader,
        *,
        views: int,
        model: Any,
        variables: Any,
        log: Callable[[str], None],
        corrupted: int = 0,
        on_chunk: Callable[[], None] = lambda: None,
    ):
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        self._loader, self._folder, self._views = loader, folder, views
        self._versions = 1 + corrupted
        self.source = loader.source
        self._form = cached_form(self.stage_recipe, model)
        self.recipe = self._form.recipe
        videos = self.source.videos
        self._first = np.cumsum([0, *(len(video.frames) for video in videos)])
        self._labels = np.full((views, self._first[-1], *loader.size), IGNORE, np.uint8)
        self._maps: dict[str, np.ndarray] = {}
        apply = jax.jit(functools.partial(model.apply, method=self._form.method))
        encode = functools.partial(apply, variables)
        try:
            for number, video in enumerate(videos):
                for view, version in np.ndindex(views, self._versions):
                    self._encode_video(number, view, version, encode, on_chunk)
                also = f" and {corrupted} corrupted versions of each" * bool(corrupted)
                log(
                    f"{video.name}: {len(video.frames)} frames encoded, {views} views"
                    + also
                )
        except BaseException:
            self.remove()
            raise

    @property
    def steps_per_epoch(self) -> int:
        return self._loader.steps_per_epoch

    def video_name(self, video: int) -> str:
        return self._loader.video_name(video)

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step.

        Returns:
            The current frames' features [b, h, w, c] under the names in `FEATURES`;
            `window` [b, T-1, h, w, 256] and `past` [b, n, h, w, 256], `Features.top`
            of older frames, with `window_mask` and `past_mask`; `label` uint8
            [b, H, W]; `video` and `frame` int32 [b], of the current frames.
        """
        rows = [self._row(step, row) for row in range(self._loader.rows)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yields `batch(step)` for the steps of a range."""
        return map(self.batch, range(start_step, stop_step))

    def remove(self) -> None:
        """Deletes the features from disk."""
        self._maps.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _row(self, step: int, row: int) -> dict[str, np.ndarray]:
        video, frame, clip, rng = self._loader.draw(step, row)
        view, first = int(rng.integers(self._views)), self._first[video]
        version = view * self._versions  # the version without corruption
        top = self._maps["top"][version]
        return {
            **{name: self._maps[name][version, first + frame] for name in FEATURES},
            "window": top[first + clip.frames[:-1]],
            "window_mask": clip.frames_mask[:-1],
            "past": top[first + clip.past],
            "past_mask": clip.past_mask,
            "label": self._labels[view, first + frame],
            "video": np.array(video, np.int32),
            "frame": np.array(frame, np.int32),
        }

    def _encode_video(
        self,
        number: int,
        view: int,
        version: int,
        encode: Callable[[np.ndarray], Any],
        on_chunk: Callable[[], None],
    ) -> None:
        loader = self._loader
        rng = generator(loader.seed, _VIEW_STREAM | number * self._views + view)
        augmentation = (
            loader.augment.draw(rng, loader.size) if view and loader.augment else None
        )
        slot = view * self._versions + version

        def clean(frame: int) -> np.ndarray:
            return loader.image(number, frame, augmentation, frame)

        def image(frame: int) -> np.ndarray:
            if not version:
                return clean(frame)
            burst, step = divmod(frame, _BURST)
            stream = number * self._views * self._versions + slot
            seed = generator(loader.seed, _CORRUPTION_STREAM | stream << 24 | burst)
            _, kinds, count = loader.corruption or Corruption(0.0)
            # "frozen" repeats the frame before the burst; the first burst has none.
            kinds = [kind for kind in kinds if burst or kind != "frozen"]
            layers = draw_layers(seed, kinds, count=count)
            frozen = layers[0].kind == "frozen"
            before = clean(frame - step - 1) if frozen else None
            return corrupt_layers(clean(frame), layers, step=step, before=before)

        length = len(loader.source.videos[number].frames)
        for start in range(0, length, _CHUNK):
            indices = range(start, min(start + _CHUNK, length))
            images = [image(i) for i in indices]
            # The last chunk is filled up with its last frame, so that all chunks have
            # one shape and `encode` is compiled once.
            images += images[-1:] * (_CHUNK - len(images))
            features = encode(np.stack(images))
            first = self._first[number] + start
            for name in self._form.names:
                maps = np.asarray(getattr(features, name))[: len(indices)]
                self._map(name, maps)[slot, first : first + len(indices)] = maps
            if version == 0:
                for i in indices:
                    label = loader.label(number, i, augmentation)
                    self._labels[view, self._first[number] + i] = label
            on_chunk()

    def _map(self, name: str, like: np.ndarray) -> np.ndarray:
        """Returns the stored maps of a name, created on first use."""
        if name not in self._maps:
            slots = self._views * self._versions
            shape = (slots, int(self._first[-1]), *like.shape[1:])
            dtype = np.dtype(self._form.dtype or like.dtype)
            path = self._folder / name
            with as_write_error(path), path.open("wb") as file:
                # Reserve the disk space now: writing to a memory map on a full disk
                # kills the process.
                size = int(np.prod(shape)) * dtype.itemsize
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, size)
            self._maps[name] = np.memmap(path, dtype, "r+", shape=shape)
        return self._maps[name]


class SequenceCache(FeatureCache):
    """Loads batches of encoded sequences in which every frame is scored.

    The frames of a sequence are equally spaced, at most `spec.stride` apart. Some are
    corrupted in a burst. Maps are stored as float16. If the network's only memory is
    the prediction state, the frames are stored decoded, so a training step is cheap.
    """

    stage_recipe = "rollout"

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step.

        Returns:
            Maps [b, T, h, w, c] under the names in `FEATURES` or `DECODED`, oldest
            frame first; `frames_mask` bool [b, T], False before the start of the
            video; `label` uint8 [b, T, H, W]; `video` and `frame` int32 [b], of the
            last frames.
        """
        return super().batch(step)

    def _row(self, step: int, row: int) -> dict[str, np.ndarray]:
        loader = self._loader
        video, frame, _, rng = loader.draw(step, row)
        stride = int(rng.integers(1, loader.spec.stride + 1))
        spec = dataclasses.replace(loader.spec, stride=stride)
        clip = sample_clip(rng, self.source.videos, video, frame, spec)
        view, indices = int(rng.integers(self._views)), self._first[video] + clip.frames
        versions = np.full(len(indices), view * self._versions)
        if self._versions > 1:
            corruption = loader.corruption or Corruption(0.0)
            burst = corruption.draw(rng, len(indices))
            versions += burst * int(rng.integers(1, self._versions))
        label = self._labels[view][indices]
        label[~clip.frames_mask] = IGNORE
        return {
            **{name: self._maps[name][versions, indices] for name in self._form.names},
            "frames_mask": clip.frames_mask,
            "label": label,
            "video": np.array(video, np.int32),
            "frame": np.array(frame, np.int32),
        }
