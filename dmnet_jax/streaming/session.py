"""One live video: frames in as they come, results out, faults handled and counted.

    with Session.from_checkpoint("runs/endovis17/fold0-seed0") as session:
        for frame in camera:  # uint8 [H, W, 3], RGB
            result = session.step(frame)
            if result.labels is not None:
                show(result.labels)

Not a medical device: for research use.
"""

import dataclasses
import json
import os
import time
from typing import Any

import jax
import numpy as np

from dmnet_jax.streaming.artefact import load_artefact
from dmnet_jax.streaming.frames import Forget, FrameCheck, Policy, Status
from dmnet_jax.streaming.latency import Latency
from dmnet_jax.streaming.network import KEEP, RESET_ALL, RESET_LOCAL
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
            this stream), "late", "blank", "frozen", "suspect" (the network's output
            is not finite).
        reason: the rule in words; empty for a plain frame.
        labels: uint8 [h, w]; None unless the status is "ok": a label map is always
            of its own frame, never an older one.
        probabilities: float32 [h, w, num_classes], if the program gives them.
        confidence: the paper's r; NaN without labels.
        similarity: the paper's s; -inf before anything was admitted.
        admitted: whether the frame entered the global memory.
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
    forgot: Forget = "keep"
    seconds: float = 0.0
    missed_deadline: bool = False


class Session:
    """A stream of frames through a program, with its own memory.

    Sessions share nothing but the program. The first step, which is slower, is made
    here and forgotten.

    Args:
        program: for one stream.
        policy: rules for frames that are not simply the next one.
        deadline: seconds a step may take; longer ones are counted.
        seed: of the memory's random reads.

    Raises:
        ValueError: the program is for several streams.
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
        self.program = program
        self._latency = Latency(deadline)
        self._check = FrameCheck(program.interface.size, policy or Policy())
        self._index = 0
        self._memory: Any = program.init_memory(jax.random.key(seed))
        blank = np.zeros((1, *program.interface.size, 3), np.uint8)
        self._memory, _ = jax.block_until_ready(program.step(self._memory, blank))
        self._forget: Forget = "reset-all"

    @classmethod
    def from_checkpoint(
        cls,
        run: str | os.PathLike[str],
        *,
        which: Any = "best",
        size: tuple[int, int] | None = None,
        label_size: tuple[int, int] | None = None,
        probabilities: bool = False,
        **options: Any,
    ) -> "Session":
        """A session of a trained network.

        Args:
            run: run directory.
            which: "best", "newest" or a step.
            size: (H, W) of the frames; None: what the network was trained at.
            label_size: (h, w) of the label maps; None: the frames' size.
            probabilities: whether results carry them.
            options: of `Session`.

        Raises:
            CheckpointError: no good checkpoint.
        """
        from dmnet_jax import models
        from dmnet_jax.checkpoint import load_variables
        from dmnet_jax.config import from_json

        variables, about = load_variables(run, which)
        config = from_json(json.dumps(about["config"]))
        program = compile(
            models.build_dmnet(config),
            variables,
            size=size or config.data.size,
            label_size=label_size,
            probabilities=probabilities,
        )
        return cls(program, **options)

    @classmethod
    def from_artefact(cls, path: str | os.PathLike[str], **options: Any) -> "Session":
        """A session of a file that `python -m dmnet_jax.export` wrote.

        Raises:
            ArtefactError: the file is missing, damaged, or of another kind.
        """
        return cls(load_artefact(path), **options)

    def step(self, frame: Any, timestamp: float | None = None) -> Result:
        """Segments one frame, or says by which rule it does not.

        Args:
            frame: uint8 [H, W, 3], RGB, of the program's size; not kept.
            timestamp: seconds, on a clock of the caller's; enables the rules about
                late and lost frames and gaps.

        Raises:
            ValueError: the session is closed.
        """
        if self._memory is None:
            raise ValueError("the session is closed")
        index, self._index = self._index, self._index + 1
        start = time.perf_counter()
        verdict = self._check.judge(frame, timestamp)
        if verdict.status != "ok":
            return Result(index, verdict.status, verdict.reason)
        forget = max(self._forget, verdict.forget, key=list(_FORGET).index)
        self._forget = "keep"
        reset = np.full(1, _FORGET[forget], np.uint8)
        self._memory, out = self.program.step(self._memory, frame[None], reset=reset)
        out = jax.device_get(out)
        seconds = time.perf_counter() - start
        missed = self._latency.add(seconds)
        finite = bool(np.isfinite(out.confidence[0]))
        self._check.counts["suspect"] += not finite
        given = out.probabilities
        return Result(
            index=index,
            status="ok" if finite else "suspect",
            reason=verdict.reason if finite else "the network's output is not finite",
            labels=np.array(out.labels[0]) if finite else None,
            probabilities=np.array(given[0]) if finite and given is not None else None,
            confidence=float(out.confidence[0]),
            similarity=float(out.similarity[0]),
            admitted=bool(out.admitted[0]),
            forgot=forget,
            seconds=seconds,
            missed_deadline=missed,
        )

    def reset(self, forget: Forget = "reset-all") -> None:
        """Forgets the window, or everything, before the next frame.

        After "reset-all" the session answers as a new one of the same seed.
        """
        self._forget = max(self._forget, forget, key=list(_FORGET).index)
        if forget == "reset-all":
            self._check.forget()

    def stats(self) -> dict[str, Any]:
        """JSON: frames given, what became of them, and how long the steps took."""
        return {
            "frames": self._index,
            **self._check.counts,
            "latency": self._latency.summary(),
        }

    def close(self) -> None:
        """Gives the memory back; a closed session steps no more."""
        self._memory = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
