"""Provenance of a run, stored in its checkpoints and results."""

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
# Number of evenly spaced frames of each video whose digests are stored.
_FRAMES_PER_VIDEO = 8


def describe(config: Config, train: FrameSource, val: FrameSource) -> dict[str, Any]:
    """Describes a run as JSON: config, classes, videos, versions and machine.

    Args:
        config: config of the run.
        train: training videos.
        val: validation videos.
    """
    videos = {
        name: [video.name for video in source.videos]
        for name, source in (("train_videos", train), ("val_videos", val))
    }
    content = {
        name: {
            video.name: frame_hashes(source, number, _FRAMES_PER_VIDEO)
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


def validated_config(about: Mapping[str, Any], run: object) -> Config:
    """Validates a checkpoint's metadata and returns its config.

    Args:
        about: metadata of the checkpoint, from `describe`.
        run: where it was read, for the error message.

    Raises:
        ValueError: the metadata is invalid.
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
            raise ValueError("a name or digest is not text")
        classes, needed = len(about["classes"]), config.data.num_classes
        if classes < needed:
            raise ValueError(f"{classes} classes, expected {needed}")
        if any(map(text_fault, names)):
            raise ValueError("a name contains control characters")
        if not all(type(part) is int and 0 <= part <= 255 for part in colors):
            raise ValueError("a color is not three integers in 0..255")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{run}: the metadata of its checkpoint is invalid: {fault}"
        ) from error
    return config


def versions() -> dict[str, str]:
    """Returns versions of this package, Python and libraries that affect results."""
    return {
        "dmnet_jax": dmnet_jax.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def weights_sha256(variables: Mapping[str, Any]) -> str:
    """Returns a digest of all arrays of a network: names, shapes, dtypes and values."""
    return _sha256_of_json(to_host(dict(variables))[1])


def frame_hashes(source: FrameSource, video: int, count: int = 0) -> list[str]:
    """Returns the SHA-256 of a video's images, decoded and resized for the network.

    Images of a single color, such as those of a covered lens, do not identify a video
    and are left out.

    Args:
        source: images at the network's size.
        video: index of the video in the source.
        count: maximum number of frames, evenly spaced; 0 for all.
    """
    length = len(source.videos[video].frames)
    indices = np.linspace(0, length - 1, min(count or length, length)).astype(int)
    images = (source.image(video, int(frame)) for frame in indices)
    return [
        hashlib.sha256(image.tobytes()).hexdigest()
        for image in images
        if image.min() != image.max()
    ]


def check_unseen(about: Mapping[str, Any], source: FrameSource) -> None:
    """Rejects videos that the weights were trained on, by name and by content.

    Every frame is compared with the stored digests of the training videos, so renamed,
    cut and reordered copies are found too.

    Args:
        about: metadata of the checkpoint, from `describe`.
        source: videos to evaluate, at the network's size.

    Raises:
        ValueError: names the videos, and the training videos that they are copies of.
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
            copies = known.keys() & frame_hashes(source, number)
            origins = sorted({known[digest] for digest in copies})
            faults += [f"{origin} (here {name})" for origin in origins]
    if faults:
        raise ValueError(
            f"was trained on {', '.join(faults)}; evaluate it on other videos"
        )


def _sha256_of_json(tree: Mapping[str, Any] | Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
