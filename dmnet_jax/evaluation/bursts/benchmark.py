"""The burst benchmark: causal evaluation on videos with bursts of corrupted frames.

Each video is run once clean, then in several passes with different bursts
(`data_pipelines.corruption`). The network is not told which frames are corrupted. With
controls, further rows are scored on the same frames: no memory, simple averages, and
wrong memories.

A wrong memory replaces the network's own at the start of a burst, is updated during the
burst, and is dropped at its end. All rows therefore enter a burst from the same past.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data_pipelines.corruption import Burst, Corrupted
from data_pipelines.frames import FrameSource, resize_label
from dmnet_jax.evaluation.bursts.averages import Rule, Seen, rules
from dmnet_jax.evaluation.bursts.controls import is_empty, shuffled
from dmnet_jax.evaluation.videos import Scoring, check_scoring
from dmnet_jax.metrics import frame_counts
from dmnet_jax.models.protocol import VideoSegmenter
from dmnet_jax.nn.resizing import resize

NETWORK, SINGLE = "network", "single frame"
FOREIGN, SHUFFLED, EMPTIED, CURRENT = (
    "another video's memory",
    "shuffled memory",
    "emptied memory",
    "current frame as memory",
)
FOREIGN_FRAMES = 40
"""Number of frames of another video after which its memory is used."""

FEATURES = "sixteenth_96"
"""Name of the encoder's map that the affinity compares."""


class Scored(NamedTuple):
    """Scores of one row for one frame.

    Attributes:
        row: name of the row.
        run: 0 for the clean video, 1.. for the passes.
        video: index of the video in the source.
        frame: index of the frame in the video.
        burst: number of bursts that have started so far, including this frame's.
        kind: kind of its burst; "" for a clean frame.
        severity: severity of its burst; 0 for a clean frame and kinds without severity.
        position: position in the burst, from 1; 0 for a clean frame.
        counts: int64 [num_classes, 3], from `metrics.frame_counts`.
    """

    row: str
    run: int
    video: int
    frame: int
    burst: int
    kind: str
    severity: int
    position: int
    counts: np.ndarray


Schedule = Sequence[Sequence[Burst]]


def run_bursts(
    model: VideoSegmenter,
    variables: Any,
    source: FrameSource,
    plan: Sequence[Schedule],
    *,
    controls: bool = False,
    others: FrameSource | None = None,
    scoring: Scoring = Scoring(),  # noqa: B008 (immutable)
) -> list[Scored]:
    """Scores every labeled frame of clean and corrupted videos, row by row.

    Args:
        model: the network.
        variables: variables of the network.
        source: source of clean images at the network's size, with labels as stored.
        plan: bursts for each pass and video, from `corruption.plan`.
        controls: whether to score the control rows as well.
        others: videos that provide the other video's memory, at the network's size.
            None: those of `source`, if it has at least two.
        scoring: size and resize method of predictions, and the seed.

    Raises:
        ValueError: no video is long enough for a burst, no frame of a burst has a
            label, or `scoring` is invalid.
    """
    check_scoring(scoring)
    if not any(schedule for videos in plan for schedule in videos):
        longest = max(len(info.frames) for info in source.videos)
        raise ValueError(
            f"no burst fits into videos of at most {longest} frames; they need 10 for "
            "the shortest and 21 for the longest"
        )
    found: list[Scored] = []
    nothing: Schedule = [() for _ in source.videos]
    for video in range(len(source.videos)):
        roll = Roll(model, variables, source, video, scoring, controls)
        if controls and not roll.forgetful:
            roll.foreign = _foreign(roll, others, source, video)
        for run, schedules in enumerate([nothing, *plan]):
            corrupted = Corrupted(source, schedules)
            for scored in roll.frames(corrupted, run):
                found += scored
    if not any(scored.position for scored in found):
        names = ", ".join(info.name for info in source.videos)
        raise ValueError(f"no corrupted frame of {names} has a label")
    return found


@dataclass
class Roll:
    """Runs the network and all control rows over one video."""

    model: VideoSegmenter
    variables: Any
    source: FrameSource
    video: int
    scoring: Scoring
    controls: bool
    foreign: Any = None

    def __post_init__(self) -> None:
        height, width = self.source.image(self.video, 0).shape[:2]
        self.size = height, width
        key = jax.random.fold_in(jax.random.key(self.scoring.seed), self.video)
        self.fresh = self.model.init_memory(1, self.size, key)
        self.key = jax.random.fold_in(key, 1)
        # Without a memory, the network equals the single-frame row.
        self.forgetful = is_empty(self.fresh)
        self.has_features = self.controls and _has_features(
            self.model, self.variables, self.size
        )

    def see(
        self, image: np.ndarray, memories: Sequence[Any], repeated: bool = False
    ) -> "Found":
        """Runs the network on a frame with each of several memories."""
        return _see(
            self.variables,
            tuple(memories),
            image,
            model=self.model,
            repeated=repeated,
            with_features=self.has_features,
        )

    def frames(self, corrupted: Corrupted, run: int) -> Iterator[list[Scored]]:
        """Yields, for each frame in order, the scores of all rows."""
        combining = rules(self.has_features) if self.controls else ()
        states: dict[str, Any] = {}
        # The memory that each row carries to the next frame.
        memories: dict[str, Any] = {NETWORK: self.fresh}
        begun = 0
        for frame in range(len(self.source.videos[self.video].frames)):
            burst = corrupted.burst(self.video, frame)
            if burst is None:
                memories = {NETWORK: memories[NETWORK]}
            elif frame == burst.start:
                begun += 1
                memories |= self._wrong(memories[NETWORK], frame)
            alone = self.controls and not self.forgetful
            given = memories | ({SINGLE: self.fresh} if alone else {})
            found = self.see(
                corrupted.image(self.video, frame),
                list(given.values()),
                repeated=alone and burst is not None,
            )
            scores = dict(zip(given, found.logits, strict=True))
            memories = dict(zip(memories, found.memories, strict=False))
            if found.repeated is not None:
                scores[CURRENT] = found.repeated
            single = scores.get(SINGLE, scores[NETWORK])
            seen = Seen(single, found.features, burst is not None)
            scores |= _combined(combining, states, seen)
            yield self._scored(scores, (run, self.video, frame, begun), burst)

    def _wrong(self, memory: Any, frame: int) -> dict[str, Any]:
        """Returns the wrong memories that replace the network's at a burst's start."""
        if self.forgetful or not self.controls:
            return {}
        wrong = {
            SHUFFLED: shuffled(memory, jax.random.fold_in(self.key, frame)),
            EMPTIED: self.fresh,
        }
        if self.foreign is not None:
            wrong[FOREIGN] = self.foreign
        return wrong

    def _scored(
        self,
        scores: dict[str, Array],
        place: tuple[int, int, int, int],
        burst: Burst | None,
    ) -> list[Scored]:
        frame = place[2]
        truth = self.source.label(self.video, frame)
        if truth is None:
            return []
        if self.scoring.score_at == "input":
            truth = resize_label(truth, self.size)
        kind, severity, position = "", 0, 0
        if burst is not None:
            kind, severity = burst.kind, burst.severity
            position = frame - burst.start + 1
        found, known = [], {}
        for name, score in scores.items():
            # Several rows may share scores, such as a rule on a clean frame.
            if id(score) not in known:
                label = _label(score, size=truth.shape, method=self.scoring.enlarge)
                known[id(score)] = frame_counts(
                    np.asarray(label), truth, self.model.num_classes
                )
            what = kind, severity, position, known[id(score)]
            found.append(Scored(name, *place, *what))
        return found


def _combined(
    combining: Sequence[Rule], states: dict[str, Any], seen: Seen
) -> dict[str, Array]:
    scores = {}
    for rule in combining:
        states[rule.name], scores[rule.name] = rule.update(states.get(rule.name), seen)
    return scores


def _foreign(
    roll: Roll, others: FrameSource | None, source: FrameSource, video: int
) -> Any:
    """Returns the memory of another video; None if there is no other."""
    other = 0
    if others is None:
        if len(source.videos) < 2:
            return None
        others, other = source, (video + 1) % len(source.videos)
    memory = roll.fresh
    for frame in range(min(FOREIGN_FRAMES, len(others.videos[other].frames))):
        # Two memories, as for clean frames, so that the same compiled program is used.
        memory = roll.see(others.image(other, frame), [memory, roll.fresh]).memories[0]
    return memory


def _has_features(model: Any, variables: Any, size: tuple[int, int]) -> bool:
    """Returns whether the encoder has the map that the affinity compares."""
    if not hasattr(model, "encode"):
        return False
    frame = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    encode = partial(model.apply, method="encode")
    return hasattr(jax.eval_shape(encode, variables, frame), FEATURES)


class Found(NamedTuple):
    """Results for one frame.

    Attributes:
        memories: the updated memory, for each input memory.
        logits: logits [1, h, w, C], for each input memory.
        repeated: logits of a second step on the same frame from the last updated
            memory, or None.
        features: encoder features, or None.
    """

    memories: tuple[Any, ...]
    logits: tuple[Array, ...]
    repeated: Array | None
    features: Array | None


@partial(jax.jit, static_argnames=("model", "repeated", "with_features"))
def _see(
    variables: Any,
    memories: tuple[Any, ...],
    image: Array,
    *,
    model: Any,
    repeated: bool,
    with_features: bool,
) -> Found:
    """Runs all memories in one program; shared parts are computed once."""

    def step(memory: Any) -> tuple[Any, Array]:
        memory, output = model.apply(variables, memory, image[None, None])
        return memory, output.logits[:, 0]

    count = range(len(memories))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *memories)
    after, logits = jax.vmap(step, axis_size=len(memories))(stacked)
    found = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], after) for i in count)
    again = step(found[-1])[1] if repeated else None
    features = None
    if with_features:
        maps = model.apply(variables, image[None], method="encode")
        features = getattr(maps, FEATURES)
    return Found(found, tuple(logits[i] for i in count), again, features)


@partial(jax.jit, static_argnames=("size", "method"))
def _label(scores: Array, *, size: tuple[int, int], method: str) -> Array:
    return jnp.argmax(resize(scores, size, method)[0], -1).astype(jnp.uint8)
