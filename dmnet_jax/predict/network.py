"""What `predict` segments with: a trained run, or a file that `export` wrote."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmnet_jax import streaming
from dmnet_jax.checkpoint.provenance import weights_sha256
from dmnet_jax.streaming import Program, Session, TrainedRun, compile
from dmnet_jax.streaming.letterbox import canvas_fault, label_size

Size = tuple[int, int]

EXPORTED = (".jax", ".onnx", ".xml")
"""Suffixes of exported files."""


class Network:
    """A network that is loaded once, for videos of any size.

    Attributes:
        classes: "name" and "color" of each, background first.
        size: (H, W) of the frames it computes on.
        sha256: of its weights, or of the exported file.
    """

    def __init__(
        self,
        classes: list[dict[str, Any]],
        size: Size,
        sha256: str,
        program: Callable[[Size], Program],
    ) -> None:
        self.classes, self.size, self.sha256 = classes, size, sha256
        self._program, self._programs = program, {}

    def session(self, size: Size, **options: Any) -> Session:
        """A new session for frames [*size, 3]; a size is compiled once.

        Raises:
            ValueError: such frames are too large or too long.
        """
        check_frames(size, self.size)
        if size not in self._programs:
            self._programs[size] = self._program(size)
        return Session(self._programs[size], **options)


def load_network(
    checkpoint: str, which: Any = "newest", *, memory: bool = True
) -> Network:
    """The network of a run directory, the shipped one, or an exported file.

    Raises:
        ValueError: it cannot be loaded; says why.
    """
    if Path(checkpoint).suffix in EXPORTED:
        if not memory:
            raise ValueError(
                f"{checkpoint}: an exported file keeps its memory; --no-memory takes a "
                "run directory or the shipped network"
            )
        return _exported(Path(checkpoint))
    trained = streaming.load_run(checkpoint, which, memory=memory)
    return Network(
        trained.about["classes"],
        trained.config.data.size,
        weights_sha256(trained.variables),
        lambda size: program_for(trained, size),
    )


def session_for(trained: TrainedRun, size: Size, **options: Any) -> Session:
    """A session whose labels have the size of frames [*size, 3], exactly.

    Frames of other sizes are letterboxed too, and their labels the nearest pixels', as
    are those of more than `MAX_LABELS` pixels.

    Raises:
        ValueError: such frames are too large or too long.
    """
    check_frames(size, trained.config.data.size)
    return Session(program_for(trained, size), **options)


def program_for(trained: TrainedRun, size: Size) -> Program:
    """The compiled step of `session_for`."""
    network = trained.config.data.size
    labels = label_size(size, network)
    return compile(trained.model, trained.variables, size=network, label_size=labels)


def check_frames(size: Size, network: Size) -> None:
    """Refuses frames that cannot be letterboxed to the network's size; ValueError."""
    fault = canvas_fault(size, network)
    if fault:
        raise ValueError(f"frames cannot be used: {fault}")


def _exported(path: Path) -> Network:
    program = streaming.load_artifact(path)
    interface = program.interface
    if interface.streams != 1:
        raise ValueError(
            f"{path}: steps {interface.streams} streams together; export it for one"
        )
    described = json.loads(path.with_name(f"{path.name}.json").read_bytes())
    classes = described.get("classes") or [
        {"name": f"class_{index}", "color": [0, 0, 0]}
        for index in range(interface.num_classes)
    ]
    known = isinstance(classes, list) and all(
        isinstance(info, dict) and {"name", "color"} <= info.keys() for info in classes
    )
    if not known or len(classes) != interface.num_classes:
        raise ValueError(
            f"{path}.json: classes must be the names and colors of "
            f"{interface.num_classes} classes; export it again"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Network(classes, interface.size, digest, lambda size: program)
