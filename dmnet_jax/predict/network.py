"""What `predict` segments with: a trained run, or a file that `export` wrote."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmnet_jax import streaming
from dmnet_jax.checkpoint.provenance import weights_sha256
from dmnet_jax.models.protocol import Memories
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
        memories: which memories it has.
        global_size: frames that the global memory can hold; None if not known.
        compiled: whether its memory can be inspected and its thresholds changed, which
            those of an exported file cannot.
        state: whether it has a prediction state; None if not known.
    """

    def __init__(
        self,
        classes: list[dict[str, Any]],
        size: Size,
        sha256: str,
        program: Callable[[Size], Program],
        *,
        memories: Memories = Memories(),  # noqa: B008  (immutable)
        global_size: int | None = None,
        compiled: bool = False,
        state: bool | None = None,
    ) -> None:
        self.classes, self.size, self.sha256 = classes, size, sha256
        self.memories, self.global_size = memories, global_size
        self.compiled, self.state = compiled, state
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
    return network_of(streaming.load_run(checkpoint, which, memory=memory))


def network_of(trained: TrainedRun) -> Network:
    """Returns the network of a run that is loaded already."""
    model = trained.model
    return Network(
        trained.about["classes"],
        trained.config.data.size,
        weights_sha256(trained.variables),
        lambda size: _program(trained, size),
        memories=model.memories,
        global_size=getattr(model, "global_size", None),
        compiled=True,
        state=getattr(model, "state", False),
    )


def _program(trained: TrainedRun, size: Size) -> Program:
    """Compiles a step whose labels have the size of frames [*size, 3], exactly.

    Frames of other sizes are letterboxed too, and their labels the nearest pixels', as
    are those of more than `MAX_LABELS` pixels.
    """
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
    return Network(
        classes,
        interface.size,
        digest,
        lambda size: program,
        memories=program.memories,
    )
