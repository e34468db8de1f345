"""A session on one live video: takes frames, returns results, handles bad frames.

    with Session.from_checkpoint("runs/endovis17/fold0-seed0") as session:
        for frame in camera:  # uint8 [H, W, 3], RGB (OpenCV's: frame[..., ::-1])
            result = session.step(frame)
            if result.labels is not None:
                show(result.labels)

Not a medical device: for research use.
"""

import dataclasses
import os
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dmnet_jax.checkpoint import Which
from dmnet_jax.checkpoint.runs import PRETRAINED, PRETRAINED_FAST, load_run
from dmnet_jax.memory import KEEP, RESET_ALL, RESET_LOCAL, DualMemory
from dmnet_jax.streaming.artifact import load_artifact
from dmnet_jax.streaming.frames import (
    Forget,
    FrameCheck,
    Policy,
    Status,
    check_positive,
)
from dmnet_jax.streaming.latency import Latency
from dmnet_jax.streaming.letterbox import restore, uncovered
from dmnet_jax.streaming.program import Program, compile

_FORGET: dict[Forget, int] = {
    "keep": KEEP,
    "reset-local": RESET_LOCAL,
    "reset-all": RESET_ALL,
}


@dataclasses.dataclass(frozen=True)
class Result:
    """Result for one frame.

    Attributes:
        index: index of the frame among all frames passed to `step`, from 0.
        status: "ok", or why there are no labels: "refused" (not a frame of this
            stream), "late", "blank", "frozen", or "suspect" (decoded with errors, or
            the network's output is not finite).
        reason: the status as text; empty for a regular frame.
        labels: uint8 [h, w], at the frame's size if other sizes are letterboxed, else
            at the program's label size. None unless the status is "ok": labels are
            never repeated from an older frame.
        probabilities: float32 [h, w, num_classes]; None if the program does not return
            them.
        confidence: the paper's r; NaN without labels.
        similarity: the paper's s; -inf before the first admitted frame and without a
            global memory.
        admitted: whether the frame entered the global memory.
        trust: float32 [h, w], coarse, in 0..1: how far each part of the frame was
            trusted over the predictions from the frames before. None without labels,
            without a prediction state, and for an exported program.
        forgot: what the memory forgot before this frame.
        seconds: time from the frame in host memory to its labels in host memory.
        missed_deadline: whether `seconds` is above the session's deadline.
    """

    index: int
    status: Status
    reason: str = ""
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    confidence: float = float("nan")
    similarity: float = float("nan")
    admitted: bool = False
    trust: np.ndarray | None = None
    forgot: Forget = "keep"
    seconds: float = 0.0
    missed_deadline: bool = False


class MemoryContents(NamedTuple):
    """Indices of the frames in the memories, oldest first.

    Frames are counted from 0 over the frames used since the last "reset-all". The tuple
    is empty for a memory that the network does not have.

    Attributes:
        local: frames in the local memory.
        global_: frames in the global memory.
    """

    local: tuple[int, ...]
    global_: tuple[int, ...]


class Session:
    """Runs a program on one stream of frames, with its own memory.

    Sessions share nothing but the program. The constructor runs one warm-up step and
    resets the memory. A session is thread-safe: its methods are serialized by a lock.

    Args:
        program: a program for one stream.
        policy: rules for irregular frames. None: `Policy()`, except that other sizes
            are refused if the program's label size differs from its frame size.
        deadline: seconds a step may take; longer steps are counted as misses.
        seed: seed of the memory's random reads. They equal the reads of `evaluation`
            in its first video.

    Raises:
        ValueError: the program is for several streams, or the deadline is invalid.
    """

    def __init__(
        self,
        program: Program,
        *,
        policy: Policy | None = None,
        deadline: float | None = None,
        seed: int = 0,
    ) -> None:
        if program.interface.streams != 1:
            raise ValueError(
                f"the program is for {program.interface.streams} streams; a session "
                "needs one compiled with streams=1"
            )
        check_positive("deadline", deadline)
        whole = program.interface.label_size == program.interface.size
        policy = policy or Policy(other_sizes="letterbox" if whole else "refuse")
        self.program = program
        self._lock = threading.RLock()
        self._latency = Latency(deadline)
        self._check = FrameCheck(program.interface.size, policy)
        self._index = 0
        self._letterbox = policy.other_sizes == "letterbox"
        key = jax.random.fold_in(jax.random.key(seed), 0)
        self._memory: Any = program.init_memory(key)
        blank = np.zeros((1, *program.interface.size, 3), np.uint8)
        self._memory, _ = jax.block_until_ready(program.step(self._memory, blank))
        self._forget: Forget = "reset-all"

    @classmethod
    def from_checkpoint(
        cls,
        run: str | os.PathLike[str],
        *,
        which: int | Which = "newest",
        size: tuple[int, int] | None = None,
        label_size: tuple[int, int] | None = None,
        probabilities: bool = False,
        memory: bool = True,
        scales: Sequence[float] = (),
        **options: Any,
    ) -> "Session":
        """Creates a session from a trained network.

        Args:
            run: run directory, `.safetensors` file, `PRETRAINED` or
                `PRETRAINED_FAST`; see `load_run`.
            which: "newest", "best" (on the validation videos) or a step.
            size: (H, W) of the frames. None: the training size.
            label_size: (h, w) of the label maps. None: the size of the frames.
            probabilities: whether to return class probabilities.
            memory: whether to use the network's memory; False for images that are not
                consecutive frames.
            scales: further sizes, relative to `size`, at which frames are segmented;
                the predictions are averaged, see `DMNet.scales`.
            **options: arguments of `Session`.

        Raises:
            CheckpointError: the run has no usable checkpoint.
        """
        trained = load_run(run, which, memory=memory, scales=scales)
        program = compile(
            trained.model,
            trained.variables,
            size=size or trained.config.data.size,
            label_size=label_size,
            probabilities=probabilities,
        )
        return cls(program, **options)

    @classmethod
    def pretrained(
        cls,
        *,
        fast: bool = False,
        size: tuple[int, int] | None = None,
        label_size: tuple[int, int] | None = None,
        **options: Any,
    ) -> "Session":
        """Creates a session from a pretrained network that ships with the package.

        It segments an instrument's shaft, wrist and claspers and was trained on
        rendered scenes only; see docs/model_card.md for its scores.

        Args:
            fast: whether to use the network with half of the channels, which is less
                accurate.
            size: (H, W) of the network's input, which other frames are padded to.
                None: 256x320, the training size; 256x448 fits 16:9 video.
            label_size: (h, w) of the label maps. None: the size of the frames.
            **options: arguments of `from_checkpoint`.
        """
        return cls.from_checkpoint(
            PRETRAINED_FAST if fast else PRETRAINED,
            size=size,
            label_size=label_size,
            **options,
        )

    @classmethod
    def from_artifact(cls, path: str | os.PathLike[str], **options: Any) -> "Session":
        """Creates a session from a file written by `python -m dmnet_jax.export`.

        Args:
            path: the `.jax`, `.onnx` or `.xml` file.
            **options: arguments of `Session`.

        Raises:
            ArtifactError: the file is missing, damaged, or not an exported step.
        """
        return cls(load_artifact(path), **options)

    @classmethod
    def from_artefact(cls, path: str | os.PathLike[str], **options: Any) -> "Session":
        """Deprecated alias of `from_artifact`."""
        warnings.warn(
            "Session.from_artefact is deprecated; use Session.from_artifact",
            DeprecationWarning,
            stacklevel=2,
        )
        return cls.from_artifact(path, **options)

    def step(
        self, frame: Any, timestamp: float | None = None, damage: str = ""
    ) -> Result:
        """Segments one frame, or returns why the frame is not used.

        Args:
            frame: uint8 [H, W, 3], RGB, of any size that the policy accepts. The
                session keeps no reference to it.
            timestamp: seconds on any clock; enables the rules for late and lost frames
                and gaps.
            damage: the decoder's error message. A damaged frame is not used.

        Raises:
            ValueError: the session is closed.
        """
        with self._lock:
            return self._step(frame, timestamp, damage)

    def _step(self, frame: Any, timestamp: float | None, damage: str) -> Result:
        if self._memory is None:
            raise ValueError("the session is closed")
        index, self._index = self._index, self._index + 1
        start = time.perf_counter()
        canvas = self._check.fitted(frame)
        verdict = self._check.judge(canvas, timestamp, damage)
        if verdict.status != "ok":
            return Result(index, verdict.status, verdict.reason)
        forget = max(self._forget, verdict.forget, key=list(_FORGET).index)
        self._forget = "keep"
        reset = np.full(1, _FORGET[forget], np.uint8)
        self._memory, out = self.program.step(self._memory, canvas[None], reset=reset)
        out = jax.device_get(out)
        labels = np.array(out.labels[0])
        trust = None if out.trust is None else np.array(out.trust[0])
        if self._letterbox:
            fitted = frame.shape[:2], self.program.interface.size
            labels = restore(labels, *fitted)
            trust = None if trust is None else uncovered(trust, *fitted)
        seconds = time.perf_counter() - start
        missed = self._latency.add(seconds)
        finite = bool(np.isfinite(out.confidence[0]))
        self._check.counts["suspect"] += not finite
        has_global = self.program.memories.global_
        probabilities = None
        if finite and out.probabilities is not None:
            probabilities = np.array(out.probabilities[0])
        return Result(
            index=index,
            status="ok" if finite else "suspect",
            reason=verdict.reason if finite else "the network's output is not finite",
            labels=labels if finite else None,
            probabilities=probabilities,
            confidence=float(out.confidence[0]),
            similarity=float(out.similarity[0]) if has_global else -np.inf,
            admitted=bool(out.admitted[0]) and has_global,
            trust=trust if finite else None,
            forgot=forget,
            seconds=seconds,
            missed_deadline=missed,
        )

    def reset(self, forget: Forget = "reset-all") -> None:
        """Resets the local memory, or all memories, before the next frame.

        After "reset-all" the session gives the same results as a new one with the same
        seed.

        Args:
            forget: "keep", "reset-local" or "reset-all".

        Raises:
            ValueError: `forget` is none of these.
        """
        if forget not in _FORGET:
            some = ", ".join(map(repr, _FORGET))
            raise ValueError(f"forget is {forget!r}; it must be one of {some}")
        with self._lock:
            self._forget = max(self._forget, forget, key=list(_FORGET).index)
            if forget == "reset-all":
                self._check.forget()

    @property
    def thresholds(self) -> dict[str, float] | None:
        """The paper's alpha, "min_confidence", and beta, "max_similarity"."""
        return self.program.thresholds

    def set_thresholds(self, *, min_confidence: float, max_similarity: float) -> None:
        """Changes the admission thresholds from the next frame on, without recompiling.

        Args:
            min_confidence: the paper's alpha.
            max_similarity: the paper's beta.

        Raises:
            ValueError: a threshold is not finite, or the program was exported.
        """
        values = {"min_confidence": min_confidence, "max_similarity": max_similarity}
        if not all(np.isfinite(list(values.values()))):
            raise ValueError(f"thresholds are {values}; they must be finite")
        if self.program.with_thresholds is None:
            raise ValueError("thresholds of an exported program cannot be changed")
        with self._lock:
            self.program = self.program.with_thresholds(values)

    def remembered(self) -> MemoryContents:
        """Returns the indices of the frames in the memories.

        Raises:
            ValueError: the session is closed, or its program was exported.
        """
        with self._lock:
            if not any(self.program.memories) and self._memory is not None:
                return MemoryContents((), ())
            if not isinstance(self._memory, DualMemory):
                raise ValueError(
                    "the memory can be inspected only in an open session of a "
                    "compiled program"
                )
            rings = self._memory.local, self._memory.global_
            stamps = jax.device_get([ring.stamp[0] for ring in rings])
        return MemoryContents(
            *(
                tuple(sorted(stamp[stamp >= 0].tolist())) if exists else ()
                for stamp, exists in zip(stamps, self.program.memories, strict=True)
            )
        )

    def stats(self) -> dict[str, Any]:
        """Returns frame counts by status and step latencies, as JSON."""
        with self._lock:
            return {
                "frames": self._index,
                **self._check.counts,
                "latency": self._latency.summary(),
            }

    def close(self) -> None:
        """Frees the memory. A closed session cannot step."""
        with self._lock:
            self._memory = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
