"""Encoded frames on disk, for stages in which the encoder does not change.

A training clip of the paper has nine frames, and with a frozen encoder the same frames
are encoded again in every clip and epoch. Here each is encoded once, under each of a
few fixed augmentations ("views"), and clips are put together from the results: the
same clips that `ClipLoader` would draw, but for their augmentation. Of each view there
may be corrupted versions as well, out of which bursts are taken into sequences.
"""

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.corruption import SEVERITIES, TRAINED, Corruption, corrupt
from data_pipelines.frames import IGNORE
from data_pipelines.io.files import as_write_error, make_folder
from data_pipelines.loading.clips import sample_clip
from data_pipelines.loading.loader import Batch, ClipLoader
from data_pipelines.synthetic.fields import generator
from dmnet_jax.models.clips import decode_frames
from dmnet_jax.models.features import DECODED, FEATURES
from dmnet_jax.training.stages import Stage

_CHUNK = 8
_VIEW_STREAM, _CORRUPTION_STREAM = 1 << 62, 3 << 61
# Frames of a corrupted version that share a disturbance.
_RUN = 6


@contextmanager
def encoded_once(
    stage: Stage,
    folder: Path,
    model: Any,
    variables: Any,
    log: Callable[[str], None],
) -> Iterator[Stage]:
    """The stage with its frames encoded, if it asks for `cached_views`.

    The features lie in `folder`, which is deleted at the end.
    """
    if not stage.cached_views:
        yield stage
        return
    assert isinstance(stage.loader, ClipLoader)  # the config's check
    sequences = stage.recipe == "rollout"
    cache = (SequenceCache if sequences else FeatureCache)(
        folder,
        stage.loader,
        views=stage.cached_views,
        corrupted=stage.corrupted_views,
        model=model,
        variables=jax.device_get(variables),
        log=log,
    )
    try:
        yield dataclasses.replace(stage, loader=cache, recipe=cache.recipe)
    finally:
        cache.remove()


class FeatureCache:
    """Batches of encoded clips; has the interface of a `ClipLoader`.

    Args:
        folder: where the features go; emptied first. 0.9 MB a frame and view at
            256x320 in float32, 3.7 MB at 512x640.
        loader: of the clips; its augmentation gives the views. All frames of a video
            share one draw in a view, so motion stays motion. The first view is the
            frames as they are.
        views: how many.
        model: whose `encode` is applied.
        variables: its variables, the running statistics of batch norm among them.
        log: called with a line a video.
        corrupted: versions of each view that are corrupted by the loader's kinds.
    """

    dtype: Any = None  # of what is stored; None: the model's
    recipe: Any = "features"  # of `models.forward`
    # What is stored of a frame, and the model's method that computes it.
    names: tuple[str, ...] = FEATURES
    method: Any = "encode"

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
    ):
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        self._loader, self._folder, self._views = loader, folder, views
        self._versions = 1 + corrupted
        self.source = loader.source
        videos = self.source.videos
        self._first = np.cumsum([0, *(len(video.frames) for video in videos)])
        self._labels = np.full((views, self._first[-1], *loader.size), IGNORE, np.uint8)
        self._maps: dict[str, np.ndarray] = {}
        encode = jax.jit(functools.partial(model.apply, method=self.method))
        for number, video in enumerate(videos):
            for view in range(views):
                for version in range(self._versions):
                    self._encode_video(
                        number, view, version, functools.partial(encode, variables)
                    )
            log(
                f"{video.name}: {len(video.frames)} frames encoded, {views} views"
                + (f" and {corrupted} corrupted ones of each" if corrupted else "")
            )

    @property
    def steps_per_epoch(self) -> int:
        return self._loader.steps_per_epoch

    def video_name(self, video: int) -> str:
        return self._loader.video_name(video)

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Returns:
            The current frames' features, [b, h, w, c] by the names of `FEATURES`;
            `window` [b, T-1, h, w, 256] and `window_mask`, `past` [b, n, h, w, 256]
            and `past_mask`, of `Features.top`; `label` uint8 [b, H, W]; `video` and
            `frame` int32 [b], of the current frames.
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
        place = view * self._versions  # of the version that is not corrupted
        top = self._maps["top"][place]
        return {
            **{name: self._maps[name][place, first + frame] for name in FEATURES},
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
    ) -> None:
        loader = self._loader
        rng = generator(loader.seed, _VIEW_STREAM | number * self._views + view)
        drawn = (
            loader.augment.draw(rng, loader.size) if view and loader.augment else None
        )

        def clean(frame: int) -> np.ndarray:
            return loader.image(number, frame, drawn, frame)

        def image(frame: int) -> np.ndarray:
            if not version:
                return clean(frame)
            run, step = divmod(frame, _RUN)
            place = (number * self._views + view) * self._versions + version
            seed = generator(loader.seed, _CORRUPTION_STREAM | place << 24 | run)
            kinds = loader.corruption.kinds if loader.corruption else TRAINED
            # A frozen frame repeats the one before the run.
            kinds = [kind for kind in kinds if run or kind != "frozen"]
            kind = kinds[int(seed.integers(len(kinds)))]
            return corrupt(
                clean(frame),
                kind,
                int(seed.choice(SEVERITIES)),
                seed=int(seed.integers(1 << 63)),
                step=step,
                before=clean(frame - step - 1) if kind == "frozen" else None,
            )

        length = len(loader.source.videos[number].frames)
        place = view * self._versions + version
        for start in range(0, length, _CHUNK):
            indices = range(start, min(start + _CHUNK, length))
            images = [image(i) for i in indices]
            # The last chunk repeats its last frame, so that one program serves all.
            images += images[-1:] * (_CHUNK - len(images))
            features = encode(np.stack(images))
            first = self._first[number] + start
            for name in self.names:
                found = np.asarray(getattr(features, name))[: len(indices)]
                self._map(name, found)[place, first : first + len(indices)] = found
            for i in indices if not version else ():
                self._labels[view, self._first[number] + i] = loader.label(
                    number, i, drawn
                )

    def _map(self, name: str, like: np.ndarray) -> np.ndarray:
        if name not in self._maps:
            places = self._views * self._versions
            shape = (places, int(self._first[-1]), *like.shape[1:])
            dtype = np.dtype(self.dtype or like.dtype)
            path = self._folder / name
            with as_write_error(path), path.open("wb") as file:
                # Taken now: writing to a map on a full disk would end the process.
                size = int(np.prod(shape)) * dtype.itemsize
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, size)
            self._maps[name] = np.memmap(path, dtype, "r+", shape=shape)
        return self._maps[name]


class SequenceCache(FeatureCache):
    """Batches of encoded sequences, all frames scored, some corrupted in a burst.

    The frames of a sequence are `spec.stride` apart at most, the same distance for all
    of one. Stored as float16. Of a network whose only memory is the prediction state,
    frames are decoded as well, which leaves little to do in a step.
    """

    dtype = np.float16
    recipe = "sequences"

    def __init__(self, *args: Any, model: Any, **options: Any):
        if model.state_alone:
            self.recipe, self.method = "decoded_sequences", decode_frames
            self.names = DECODED
        super().__init__(*args, model=model, **options)

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Returns:
            Maps [b, T, h, w, c] by the names of `FEATURES` or `DECODED`, oldest first;
            `frames_mask` bool [b, T], False before the video's start; `label` uint8
            [b, T, H, W]; `video` and `frame` int32 [b], of the last frames.
        """
        return super().batch(step)

    def _row(self, step: int, row: int) -> dict[str, np.ndarray]:
        loader = self._loader
        video, frame, _, rng = loader.draw(step, row)
        stride = int(rng.integers(1, loader.spec.stride + 1))
        spec = dataclasses.replace(loader.spec, stride=stride)
        clip = sample_clip(rng, self.source.videos, video, frame, spec)
        view, indices = int(rng.integers(self._views)), self._first[video] + clip.frames
        places = np.full(len(indices), view * self._versions)
        if self._versions > 1:
            corruption = loader.corruption or Corruption(0.0)
            burst = corruption.draw(rng, len(indices))
            places += burst * int(rng.integers(1, self._versions))
        label = self._labels[view][indices]
        label[~clip.frames_mask] = IGNORE
        return {
            **{name: self._maps[name][places, indices] for name in self.names},
            "frames_mask": clip.frames_mask,
            "label": label,
            "video": np.array(video, np.int32),
            "frame": np.array(frame, np.int32),
        }
