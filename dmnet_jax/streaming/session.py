"""One live video: frames in as they come, results out, faults handled and counted.

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
from typing import Any, NamedTuple

import jax
import numpy as np

from dmnet_jax.checkpoint import Which
from dmnet_jax.checkpoint.runs import PRETRAINED, load_run
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
    """What came of one frame.

    Attributes:
        index: of the frame, counted from 0 over all that were given to `step`.
        status: "ok", or which rule withheld the labels: "refused" (not a frame of
            this stream), "late", "blank", "frozen", "suspect" (it was decoded with
            errors, or the network's output is not finite).
        reason: the rule in words; empty for a plain frame.
        labels: uint8 [h, w], at the frame's size if other sizes are letterboxed, else
            at the program's label size; None unless the status is "ok": a label map
            is always of its own frame, never an older one.
        probabilities: float32 [h, w, num_classes], if the program gives them.
        confidence: the paper's r; NaN without labels.
        similarity: the paper's s; -inf before anything was admitted, and without a
            global memory.
        admitted: whether the frame entered the global memory.
        trust: float32 [h, w], 0..1, coarse: how far each part of the frame was trusted
            over the predictions of the frames before; None without labels, without a
            prediction state, and from an exported program.
        forgot: what the memory forgot before this frame.
        seconds: from the frame in host memory to its labels in host memory.
        missed_deadline: whether that was too long.
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


class Remembered(NamedTuple):
    """Frames in the memories, oldest first, counted from 0 over those that were used
    since everything was last forgotten.

    Attributes:
        local: of the window.
        global_: of the admitted ones.

    Empty for a memory that the network does not have.
    """

    local: tuple[int, ...]
    global_: tuple[int, ...]


class Session:
    """A stream of frames through a program, with its own memory.

    Sessions share nothing but the program. The first step, which is slower, is made
    here and forgotten. Threads may share a session: its methods wait for one another.

    Args:
        program: for one stream.
        policy: rules for frames that are not simply the next one. None: `Policy()`;
            for a program with a label size of its own, other sizes are refused.
        deadline: seconds a step may take; longer ones are counted.
        seed: of the memory's random reads, which are those that `evaluation` makes
            in its first video.

    Raises:
        ValueError: the program is for several streams, or the deadline is no time.
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
        **options: Any,
    ) -> "Session":
        """A session of a trained network.

        Args:
            run: run directory, or `PRETRAINED`.
            which: "newest", "best" (on the validation videos) or a step.
            size: (H, W) of the frames; None: what the network was trained at.
            label_size: (h, w) of the label maps; None: the frames' size.
            probabilities: whether results carry them.
            options: of `Session`.

        Raises:
            CheckpointError: no good checkpoint.
        """
        trained = load_run(run, which)
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
        size: tuple[int, int] | None = None,
        label_size: tuple[int, int] | None = None,
        **options: Any,
    ) -> "Session":
        """A session of the shipped network, which needs no training.

        It tells an instrument's shaft, wrist and claspers from everything else and was
        trained on rendered scenes alone; docs/model_card.md has its scores.

        Args:
            size: (H, W) of the frames; None: what the network was trained at.
            label_size: (h, w) of the label maps; None: the frames' size.
            options: of `from_checkpoint`.
        """
        return cls.from_checkpoint(
            PRETRAINED, size=size, label_size=label_size, **options
        )

    @classmethod
    def from_artifact(cls, path: str | os.PathLike[str], **options: Any) -> "Session":
        """A session of a file that `python -m dmnet_jax.export` wrote.

        Raises:
            ArtifactError: the file is missing, damaged, or of another kind.
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
        """Segments one frame, or says by which rule it does not.

        Args:
            frame: uint8 [H, W, 3], RGB, of any size that the policy takes; not kept.
            timestamp: seconds, on a clock of the caller's; enables the rules about
                late and lost frames and gaps.
            damage: what the decoder complained about; such a frame is not used.

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
        given, kept = out.probabilities, self.program.memories
        return Result(
            index=index,
            status="ok" if finite else "suspect",
            reason=verdict.reason if finite else "the network's output is not finite",
            labels=labels if finite else None,
            probabilities=np.array(given[0]) if finite and given is not None else None,
            confidence=float(out.confidence[0]),
            similarity=float(out.similarity[0]) if kept.global_ else -np.inf,
            admitted=bool(out.admitted[0]) and kept.global_,
            trust=trust if finite else None,
            forgot=forget,
            seconds=seconds,
            missed_deadline=missed,
        )

    def reset(self, forget: Forget = "reset-all") -> None:
        """Forgets the window, or everything, before the next frame.

        After "reset-all" the session answers as a new one of the same seed.

        Raises:
            ValueError: there is no such thing to forget.
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
        """Changes what is admitted from the next frame on; nothing is compiled.

        Raises:
            ValueError: a number is not finite, or the program was exported.
        """
        values = {"min_confidence": min_confidence, "max_similarity": max_similarity}
        if not all(np.isfinite(list(values.values()))):
            raise ValueError(f"thresholds are {values}; they must be finite")
        if self.program.with_thresholds is None:
            raise ValueError("thresholds of an exported program cannot be changed")
        with self._lock:
            self.program = self.program.with_thresholds(values)

    def remembered(self) -> Remembered:
        """Which frames the memories hold, by their numbers.

        Raises:
            ValueError: the session is closed, or its program was exported.
        """
        with self._lock:
            if not any(self.program.memories) and self._memory is not None:
                return Remembered((), ())
            if not isinstance(self._memory, DualMemory):
                raise ValueError(
                    "only the memory of an open, compiled session is known"
                )
            rings = self._memory.local, self._memory.global_
            stamps = jax.device_get([ring.stamp[0] for ring in rings])
        return Remembered(
            *(
                tuple(sorted(stamp[stamp >= 0].tolist())) if there else ()
                for stamp, there in zip(stamps, self.program.memories, strict=True)
            )
        )

    def stats(self) -> dict[str, Any]:
        """JSON: frames given, what became of them, and how long the steps took."""
        with self._lock:
            return {
                "frames": self._index,
                **self._check.counts,
                "latency": self._latency.summary(),
            }

    def close(self) -> None:
        """Gives the memory back; a closed session steps no more."""
        with self._lock:
            self._memory = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
