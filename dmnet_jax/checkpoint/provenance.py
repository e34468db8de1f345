"""What a run was made from and with, kept inside its checkpoints and results."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

import dmnet_jax
from data_pipelines.frames import FrameSource
from data_pipelines.io.names import text_fault
from dmnet_jax.checkpoint.host_arrays import to_host
from dmnet_jax.config import Config, from_json
from dmnet_jax.process import cores

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
# Frames of a training video whose content is remembered; evenly spaced.
_FRAMES_A_VIDEO = 8


def describe(config: Config, train: FrameSource, val: FrameSource) -> dict[str, Any]:
    """JSON of config, classes, videos and their content, versions and machine."""
    videos = {
        name: [video.name for video in source.videos]
        for name, source in (("train_videos", train), ("val_videos", val))
    }
    content = {
        name: {
            video.name: frame_hashes(source, number, _FRAMES_A_VIDEO)
            for number, video in enumerate(source.videos)
        }
        for name, source in (("train", train), ("val", val))
    }
    named = bool(config.data.train and config.data.val)
    return {
        "config": dataclasses.asdict(config),
        "classes": [dataclasses.asdict(info) for info in train.classes],
        **videos,
        "fold": None if named else config.data.fold,
        "content": content,
        "split_sha256": _sha256_of_json([videos, content]),
        "versions": versions(),
        "devices": [device.device_kind for device in jax.devices()],
        "cores": cores(),
        "processes": jax.process_count(),
    }


def checked(about: Mapping[str, Any], run: object) -> Config:
    """The config in a checkpoint's metadata, once all that is used of it is as it was.

    Args:
        about: of the checkpoint, by `describe`.
        run: where it was read, for the error.

    Raises:
        ValueError: the metadata are not those of a run of this program.
    """
    try:
        config = from_json(json.dumps(about["config"]))
        names = [*about["train_videos"], *about["val_videos"]]
        names += [info["name"] for info in about["classes"]]
        colors = [part for info in about["classes"] for part in info["color"]]
        digests = [
            digest
            for video in about.get("content", {}).get("train", {}).values()
            for digest in video
        ]
        if not all(isinstance(text, str) for text in [*names, *digests]):
            raise ValueError("a name that is no text")
        classes, needed = len(about["classes"]), config.data.num_classes
        if classes < needed:
            raise ValueError(f"{classes} classes, not {needed}")
        if any(map(text_fault, names)):
            raise ValueError("a name with control characters")
        if not all(type(part) is int and 0 <= part <= 255 for part in colors):
            raise ValueError("a color that is none")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{run}: its checkpoint does not tell what was trained ({what})"
        ) from error
    return config


def versions() -> dict[str, str]:
    """Of this package, Python and what decides numbers."""
    return {
        "dmnet_jax": dmnet_jax.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def weights_sha256(variables: Mapping[str, Any]) -> str:
    """One hash of all arrays of a network, by name, shape, dtype and value."""
    return _sha256_of_json(to_host(dict(variables))[1])


def frame_hashes(source: FrameSource, video: int, count: int = 0) -> list[str]:
    """SHA-256 of a video's images as the network sees them, decoded and resized.

    Pictures of one colour (a covered lens, a blank) tell nothing and are left out.

    Args:
        source: images at the network's size.
        video: index in the source.
        count: at most how many frames, evenly spaced; 0: all.
    """
    length = len(source.videos[video].frames)
    chosen = np.linspace(0, length - 1, min(count or length, length)).astype(int)
    images = (source.image(video, int(frame)) for frame in chosen)
    return [
        hashlib.sha256(image.tobytes()).hexdigest()
        for image in images
        if image.min() != image.max()
    ]


def check_unseen(about: Mapping[str, Any], source: FrameSource) -> None:
    """Refuses videos that the weights were trained on, by name and by content.

    Every frame is held against those remembered of the training videos, so a renamed,
    cut or reordered copy is found too.

    Args:
        about: of the checkpoint, by `describe`.
        source: the videos to evaluate, at the network's size.

    Raises:
        ValueError: names the videos, and what they are copies of.
    """
    names = [video.name for video in source.videos]
    faults = sorted(set(names) & set(about["train_videos"]))
    known = {
        digest: video
        for video, digests in about.get("content", {}).get("train", {}).items()
        for digest in digests
    }
    for number, name in enumerate(names):
        if known and name not in faults:
            copied = known.keys() & frame_hashes(source, number)
            origins = sorted({known[digest] for digest in copied})
            faults += [f"{origin} (here {name})" for origin in origins]
    if faults:
        raise ValueError(
            f"was trained on {', '.join(faults)}; evaluate it on other videos"
        )


def _sha256_of_json(tree: Mapping[str, Any] | Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
