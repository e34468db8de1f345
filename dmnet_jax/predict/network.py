"""Loading of networks for prediction: a trained run or an exported file."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines.sources import DATASETS
from dmnet_jax import streaming
from dmnet_jax.checkpoint.provenance import weights_sha256
from dmnet_jax.models.protocol import Memories
from dmnet_jax.streaming import Program, Session, TrainedRun, compile
from dmnet_jax.streaming.letterbox import canvas_fault, fitted, label_size

Size = tuple[int, int]

EXPORTED = (".jax", ".onnx", ".xml")
"""Suffixes of exported files."""


class Network:
    """A loaded network for videos of any size.

    Attributes:
        classes: "name" and "color" of each class, background first.
        size: (H, W) of the network's input; see `input_size`.
        sha256: digest of the weights, or of the exported file.
        memories: which memories it has.
        global_size: frames that the global memory can hold; None if not known.
        compiled: whether its memory can be inspected and its thresholds changed; False
            for an exported file.
        state: whether it has a prediction state; None if not known.
        fits: whether the width of the input follows from the frames' aspect ratio.
    """

    def __init__(
        self,
        classes: list[dict[str, Any]],
        size: Size,
        sha256: str,
        program: Callable[[Size, Size], Program],
        *,
        memories: Memories = Memories(),  # noqa: B008  (immutable)
        global_size: int | None = None,
        compiled: bool = False,
        state: bool | None = None,
        fits: bool = False,
    ) -> None:
        self.classes, self.size, self.sha256 = classes, size, sha256
        self.memories, self.global_size = memories, global_size
        self.compiled, self.state, self.fits = compiled, state, fits
        self._program, self._programs = program, {}

    def input_size(self, size: Size) -> Size:
        """Returns the (H, W) of the network's input for frames of `size`."""
        return fitted(size, self.size) if self.fits else self.size

    def session(self, size: Size, **options: Any) -> Session:
        """Creates a session for frames [*size, 3]. Each size is compiled once.

        Args:
            size: (H, W) of the frames.
            **options: arguments of `Session`.

        Raises:
            ValueError: frames of this size are too large or too narrow.
        """
        input_size = self.input_size(size)
        check_frames(size, input_size)
        if size not in self._programs:
            self._programs[size] = self._program(input_size, size)
        return Session(self._programs[size], **options)


def load_network(
    checkpoint: str,
    which: Any = "newest",
    *,
    memory: bool = True,
    size: Size | None = None,
    scales: Sequence[float] = (),
) -> Network:
    """Loads the network of a run directory, the shipped one, or an exported file.

    Args:
        checkpoint: run directory, .safetensors file, "rendered", "rendered-fast", or
            path of an exported step.
        which: "newest", "best" or a step of a run.
        memory: whether to use the network's memory.
        size: (H, W) of the network's input. None: that of an exported file; the
            training size of a run; for a network that was trained on rendered scenes,
            the training height and the aspect ratio of the frames.
        scales: further sizes at which frames are segmented, see `DMNet.scales`.

    Raises:
        ValueError: the network cannot be loaded, or not with this size; says why.
    """
    if size and any(side < 32 or side % 32 for side in size):
        raise ValueError(
            f"--size is {size[0]} {size[1]}; both sides must be multiples of 32"
        )
    if Path(checkpoint).suffix in EXPORTED:
        if not memory:
            raise ValueError(
                f"{checkpoint}: an exported file always uses its memory; --no-memory "
                "needs a run directory or the shipped network"
            )
        if scales:
            raise ValueError(
                f"{checkpoint}: an exported file has one input size; --scales needs a "
                "run directory or a shipped network"
            )
        network = _exported(Path(checkpoint))
        if size and size != network.size:
            height, width = network.size
            raise ValueError(
                f"{checkpoint}: exported for frames of {height}x{width}, but --size is "
                f"{size[0]} {size[1]}; export it with this --size"
            )
        return network
    trained = streaming.load_run(checkpoint, which, memory=memory, scales=scales)
    return network_of(trained, size)


def network_of(trained: TrainedRun, size: Size | None = None) -> Network:
    """Returns the network of a run that is loaded already; see `load_network`."""
    model, data = trained.model, trained.config.data
    return Network(
        trained.about["classes"],
        size or data.size,
        weights_sha256(trained.variables),
        partial(_program, trained),
        memories=model.memories,
        global_size=getattr(model, "global_size", None),
        compiled=True,
        state=getattr(model, "state", False),
        # Rendered scenes have no aspect ratio of their own; real videos do, and runs
        # that were trained on them see frames as in training.
        fits=size is None and DATASETS[data.dataset].endless,
    )


def _program(trained: TrainedRun, input_size: Size, size: Size) -> Program:
    """Compiles a step that computes labels at the size of the frames.

    Labels of frames of other sizes, and of frames with more than `MAX_LABELS` pixels,
    are resized by nearest neighbor.
    """
    return compile(
        trained.model,
        trained.variables,
        size=input_size,
        label_size=label_size(size, input_size),
    )


def check_frames(size: Size, network: Size) -> None:
    """Checks that frames can be letterboxed to the network's size.

    Raises:
        ValueError: frames of this size are too large or too narrow.
    """
    fault = canvas_fault(size, network)
    if fault:
        raise ValueError(f"frames cannot be used: {fault}")


def _exported(path: Path) -> Network:
    program = streaming.load_artifact(path)
    interface = program.interface
    if interface.streams != 1:
        raise ValueError(
            f"{path}: exported for {interface.streams} streams; export it for one"
        )
    notes = json.loads(path.with_name(f"{path.name}.json").read_bytes())
    classes = notes.get("classes") or [
        {"name": f"class_{index}", "color": [0, 0, 0]}
        for index in range(interface.num_classes)
    ]
    valid = isinstance(classes, list) and all(
        isinstance(info, dict) and {"name", "color"} <= info.keys() for info in classes
    )
    if not valid or len(classes) != interface.num_classes:
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
        lambda *_: program,
        memories=program.memories,
    )
