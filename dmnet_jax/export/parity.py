"""Parity check of an exported step against the network, before it is written.

The same check is used for all formats. It runs the exported program as it is loaded by
users.

Both run over the same stream of frames, one of them as `step` of the network with the
training variables. During the stream, the window wraps around, the global memory is
filled so that it replaces its oldest frame, and the stream is reset. If there are
labeled videos, both are also scored on them.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.frames import FrameSource
from dmnet_jax.evaluation import Scoring, predict_video
from dmnet_jax.export.stablehlo import leaf_names
from dmnet_jax.memory import KEEP, RESET_ALL, DualMemory
from dmnet_jax.metrics import frame_counts, summarize
from dmnet_jax.models.protocol import Output
from dmnet_jax.nn.resizing import resize
from dmnet_jax.streaming.program import Program

FRAMES = 64
RELATIVE = 1e-4  # rounding tolerance, relative to the maximum magnitude of a map
MAX_MISMATCH = 1e-3  # share of pixels; allowed only where the best two classes tie
BF16_MISMATCH = 5e-2  # share of pixels, for bfloat16; ties are not required
MAX_SCORE_LOSS = 2e-3  # loss of mIoU on labeled frames

Leaves = dict[str, np.ndarray]

# Leaves of a `DualMemory` that must be equal regardless of rounding.
_COUNTERS = (".local.", ".reference.", ".global_.", ".frame")


@dataclasses.dataclass
class Parity:
    """Differences between the network and an exported step over all frames.

    Attributes:
        frames: number of frames compared.
        remembers: whether the network has a `DualMemory`.
        resets: number of resets of the stream.
        wraps: number of frames that replaced the oldest one of a full global memory.
        admitted: number of frames that entered the global memory, wraps included.
        label_mismatch: share of pixels whose labels differ.
        label_errors: number of differing pixels whose best two classes do not tie.
        state_error: maximum difference in the memory, relative to its magnitude.
        confidence_error: maximum difference of r.
        decisions_differ: number of frames that only one side admitted.
        miou_network: pooled IoU of the network on labeled frames, if there are any.
        miou_exported: pooled IoU of the exported step on the same frames.
    """

    frames: int = 0
    remembers: bool = True
    resets: int = 0
    wraps: int = 0
    admitted: int = 0
    label_mismatch: float = 0.0
    label_errors: int = 0
    state_error: float = 0.0
    confidence_error: float = 0.0
    decisions_differ: int = 0
    miou_network: float | None = None
    miou_exported: float | None = None

    def passed(self, dtype: str = "fp32") -> bool:
        """Whether the differences are acceptable for a step in "fp32" or "bf16".

        In bfloat16, admission decisions near a threshold can flip, and the memories
        differ from there on. Therefore only labels and scores are checked.
        """
        whole = self.frames >= FRAMES and self.resets > 0
        whole &= self.wraps > 0 or not self.remembers
        if self.miou_network is not None and self.miou_exported is not None:
            whole &= self.miou_network - self.miou_exported <= MAX_SCORE_LOSS
        if dtype == "bf16":
            return whole and self.label_mismatch <= BF16_MISMATCH
        return (
            whole
            and self.label_errors == self.decisions_differ == 0
            and self.label_mismatch <= MAX_MISMATCH
            and self.state_error <= RELATIVE
            and self.confidence_error <= RELATIVE
        )


def compare(model: Any, variables: Any, program: Program, names: list[str]) -> Parity:
    """Runs the network and a program over `FRAMES` generated frames.

    Args:
        model: any `models.protocol.VideoSegmenter`.
        variables: trained variables.
        program: the exported program, for one stream.
        names: names of the leaves of the program's memory, as in `leaf_names`.
    """
    interface = program.interface

    def new() -> Any:
        return model.init_memory(1, interface.size, jax.random.key(0))

    reference_memory, exported_memory = new(), program.init_memory(jax.random.key(0))
    remembers = isinstance(reference_memory, DualMemory)
    parity, mismatches = Parity(remembers=remembers), 0
    for index in range(FRAMES):
        what = KEEP
        if remembers and index in (FRAMES // 4, FRAMES // 2):
            reference_memory, exported_memory = (
                _full(reference_memory),
                _full(exported_memory, names),
            )
        elif index == 3 * FRAMES // 4:
            reference_memory, what = new(), RESET_ALL
            parity.resets += 1
        frame = picture(index, interface.size)[None]
        full = remembers and int(reference_memory.global_.count[0]) >= model.global_size
        reference_memory, output, labels, tie = _reference(
            variables, reference_memory, frame, model=model, size=interface.label_size
        )
        exported_memory, labeled = program.step(
            exported_memory, frame, reset=np.full(1, what, np.uint8)
        )

        differs = np.asarray(labels != labeled.labels)
        mismatches += differs.sum() / differs.size
        parity.label_errors += int((differs & ~np.asarray(tie)).sum())
        admitted = bool(output.admitted[0])
        parity.decisions_differ += admitted != bool(labeled.admitted[0])
        parity.admitted += admitted
        parity.wraps += full and admitted
        apart = abs(float(output.confidence[0] - labeled.confidence[0]))
        parity.confidence_error = max(parity.confidence_error, _or_infinity(apart))
        parity.state_error = max(
            parity.state_error,
            _state_error(_named(reference_memory), _named(exported_memory, names)),
        )
        parity.frames += 1
    parity.label_mismatch = float(mismatches / FRAMES)
    return parity


@partial(jax.jit, static_argnames=("model", "size"))
def _reference(
    variables: Any, memory: Any, frame: Any, *, model: Any, size: tuple[int, int]
) -> tuple[Any, Output, Any, Any]:
    """Returns memory, output, labels, and where the best two classes tie."""
    stepped: Any = model.apply(variables, memory, frame, method="step")
    memory, output = stepped
    logits = resize(output.logits, size)
    best = jax.lax.top_k(logits, 2)[0]
    tie = best[..., 0] - best[..., 1] <= 2 * RELATIVE * jnp.abs(logits).max()
    return memory, output, jnp.argmax(logits, -1), tie


def score(
    model: Any, variables: Any, program: Program, videos: FrameSource
) -> tuple[float, float]:
    """Returns the pooled IoU over foreground classes of network and program, in 0..1.

    Both run over each video from an empty memory. All labeled frames are scored, at the
    size of the frames.

    Args:
        model: the network.
        variables: trained variables.
        program: the exported program, for one stream, with labels at the frames' size.
        videos: videos at the program's size.

    Raises:
        ValueError: no frame has a label.
    """
    scoring, rows = Scoring(score_at="input"), []
    for video in range(len(videos.videos)):
        memory = program.init_memory(
            jax.random.fold_in(jax.random.key(scoring.seed), video)
        )
        for seen in predict_video(model, variables, videos, video, scoring=scoring):
            frame = videos.image(video, seen.frame)[None]
            memory, labeled = program.step(memory, frame)
            if seen.truth is not None:
                given = seen.label, np.asarray(labeled.labels[0])
                rows.append(
                    [frame_counts(x, seen.truth, model.num_classes) for x in given]
                )
    if not rows:
        raise ValueError("no frame of the labeled videos has a label")
    network, exported = np.array(rows).swapaxes(0, 1)
    return _iou(network), _iou(exported)


def _iou(counts: np.ndarray) -> float:
    return float(summarize(counts, protocol="global")["iou"])


def picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """Generates a uint8 [H, W, 3]: moving patches, a new scene every 16 frames."""
    height, width = size
    rng = np.random.default_rng(index // 16)
    patches = rng.integers(0, 256, (height // 16, width // 16, 3))
    scene = np.kron(patches, np.ones((16, 16, 1), np.int64))
    scene = np.roll(scene, (2 * index, 3 * index), axis=(0, 1))
    noise = np.random.default_rng(1000 + index).integers(-12, 13, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def _named(memory: Any, names: list[str] | None = None) -> Leaves:
    """Returns host copies of the leaves by name, except the constant PRNG key."""
    names = names or leaf_names(memory)
    leaves = dict(zip(names, jax.tree.leaves(memory), strict=True))
    held = {
        n: x
        for n, x in leaves.items()
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    }
    return {n: np.array(x) for n, x in held.items() if x.dtype != jnp.uint32}


def _full(memory: Any, names: list[str] | None = None) -> Any:
    """Fills every slot of the global memory with a variant of the first one.

    The reference is reset, so that the next frame is admitted and replaces a slot.
    """
    names = names or leaf_names(memory)
    named = _named(memory, names)
    stamps = named[".global_.stamp"]
    capacity = stamps.shape[-1]
    named[".global_.stamp"] = np.arange(capacity, dtype=stamps.dtype)[None]
    named[".global_.count"][:] = capacity
    named[".reference.count"][:] = 0
    for name, slots in named.items():
        if name.startswith(".global_.slots"):
            scale = np.linspace(0.5, 1.5, capacity, dtype=np.float32)
            scale = scale.reshape(1, -1, *[1] * (slots.ndim - 2))
            named[name] = (slots[:, :1] * scale).astype(slots.dtype)
    leaves, structure = jax.tree.flatten(memory)
    pairs = zip(names, leaves, strict=True)
    return jax.tree.unflatten(structure, [named.get(name, x) for name, x in pairs])


def _state_error(theirs: Leaves, ours: Leaves) -> float:
    """Returns the maximum error over valid ring slots and other leaves.

    Infinity if a counter differs.
    """
    worst = 0.0
    for name, expected in theirs.items():
        got = ours[name]
        if ".slots" in name:
            ring = name[: name.index(".slots")]
            valid = theirs[f"{ring}.stamp"] >= 0
            if ring == ".reference":
                valid &= theirs[f"{ring}.count"][:, None] > 0
            expected, got = expected[valid], got[valid]
            if expected.size:
                apart = np.abs(expected.astype(np.float32) - got.astype(np.float32))
                largest = max(float(np.abs(expected).max()), 1e-6)
                worst = max(worst, _or_infinity(float(apart.max()) / largest))
        elif not name.startswith(_COUNTERS) and expected.dtype.kind == "f":
            apart = np.abs(expected - got).max(initial=0.0)
            largest = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
            worst = max(worst, _or_infinity(float(apart) / largest))
        elif not np.array_equal(expected, got):
            return float("inf")
    return worst


def _or_infinity(x: float) -> float:
    return x if np.isfinite(x) else float("inf")
