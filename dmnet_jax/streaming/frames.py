"""Rules for the frames of a live camera: bad, late, repeated and resized ones.

A frame that is not used is counted, gets no labels and does not change the memory.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from dmnet_jax.streaming.letterbox import canvas_fault, letterbox

Forget = Literal["keep", "reset-local", "reset-all"]
Status = Literal["ok", "refused", "late", "blank", "frozen", "suspect"]

_ORDER: list[Forget] = ["keep", "reset-local", "reset-all"]
# This many late frames in a row, each newer than the last, mean that the clock jumped.
_DISAGREEING = 3
_THINNED = slice(None, None, 8)  # rows and columns sampled for the content checks


@dataclass(frozen=True)
class Policy:
    """Options for handling irregular frames.

    Attributes:
        skip_blank: Skip frames that are nearly uniform (black or covered camera).
        skip_frozen: Skip frames that are bitwise equal to the frame before.
        period: Seconds between frames; used to count lost frames.
        max_gap: Seconds between two frames above which `on_gap` applies.
        on_gap: What to forget after a gap.
        scene_cut: Mean absolute difference to the frame before, on a scale of 0 to
            255, from which a frame starts a new scene and `on_cut` applies. None: do
            not detect cuts.
        on_cut: What to forget at a scene cut.
        other_sizes: What to do with a frame whose size or aspect ratio is not the
            network's: "letterbox" it and map its labels back, or "refuse" it.

    Raises:
        ValueError: an option has an invalid value; the message names both.
    """

    skip_blank: bool = True
    skip_frozen: bool = True
    period: float | None = None
    max_gap: float | None = None
    on_gap: Forget = "reset-local"
    scene_cut: float | None = None
    on_cut: Forget = "reset-all"
    other_sizes: Literal["refuse", "letterbox"] = "letterbox"

    def __post_init__(self) -> None:
        for name, choices in {
            "on_gap": get_args(Forget),
            "on_cut": get_args(Forget),
            "other_sizes": ("refuse", "letterbox"),
            "skip_blank": (True, False),
            "skip_frozen": (True, False),
        }.items():
            value = getattr(self, name)
            if value not in choices:
                some = ", ".join(map(repr, choices))
                raise ValueError(f"{name} is {value!r}; it must be one of {some}")
        for name in ("period", "max_gap", "scene_cut"):
            check_positive(name, getattr(self, name))


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and math.isfinite(value)


def check_positive(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is None or a finite number above zero."""
    if value is not None and not (_is_finite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}; it must be a finite number above 0")


class Verdict(NamedTuple):
    """The decision about a frame.

    Attributes:
        status: "ok" if the frame is used.
        reason: why the frame is not used, or why something is forgotten; may be empty.
        forget: what the memory forgets before the frame.
    """

    status: Status
    reason: str = ""
    forget: Forget = "keep"


class FrameCheck:
    """Checks the frames of one stream in order of arrival.

    Args:
        size: (H, W) of the frames.
        policy: the rules to apply.

    Attributes:
        counts: number of frames and events by kind, as JSON.
    """

    BLANK_DEVIATION = 3.0

    def __init__(self, size: tuple[int, int], policy: Policy) -> None:
        self.counts: dict[str, int] = {
            **dict.fromkeys(("refused", "late", "blank", "frozen", "suspect"), 0),
            **dict.fromkeys(("lost", "gaps", "scene_cuts", "letterboxed"), 0),
            "clock_rebased": 0,
        }
        self._shape: tuple[int, int, int] = (*size, 3)
        self._policy = policy
        self._previous = np.zeros(self._shape, np.uint8)
        self._seen = False
        self._arrived: float | None = None  # timestamp of the last frame in order
        self._used: float | None = None  # timestamp of the last frame that was used
        self._late: list[float] = []  # late timestamps since the last frame in order
        self._lost = 0  # lost frames counted at the last frame in order

    def forget(self) -> None:
        """Treats the next frame as the first of a video: skips all comparisons."""
        self._seen, self._arrived, self._used = False, None, None
        self._late, self._lost = [], 0

    def fitted(self, frame: Any) -> Any:
        """Letterboxes the frame to the network's size if the policy allows it."""
        if (
            self._policy.other_sizes == "refuse"
            or not isinstance(frame, np.ndarray)
            or frame.dtype != np.uint8
            or frame.ndim != 3
            or frame.shape[-1] != 3
            or frame.shape == self._shape
            or canvas_fault(frame.shape[:2], self._shape[:2])
        ):
            return frame
        self.counts["letterboxed"] += 1
        return letterbox(frame, self._shape[:2])

    def judge(self, frame: Any, timestamp: float | None, damage: str = "") -> Verdict:
        """Applies the rules to a frame and counts it if it is not used.

        Args:
            frame: a frame returned by `fitted`.
            timestamp: seconds, if known.
            damage: the decoder's error message, if any.
        """
        verdict = self._judge(frame, timestamp, damage)
        if verdict.status != "ok":
            self.counts[verdict.status] += 1
        return verdict

    def _judge(self, frame: Any, timestamp: float | None, damage: str) -> Verdict:
        wrong = self._wrong(frame, timestamp)
        if wrong:
            return Verdict("refused", wrong)
        if timestamp is not None:
            behind = self._behind(timestamp)
            if behind is not None:
                return Verdict("late", f"{behind:.3f} s behind the frame before")
        if damage:
            return Verdict("suspect", f"damaged: {damage}")
        thin = frame[_THINNED, _THINNED].astype(np.float32)
        deviation = thin.std(axis=(0, 1)).max()
        if self._policy.skip_blank and deviation < self.BLANK_DEVIATION:
            return Verdict("blank", "its pixels hardly differ")
        if self._policy.skip_frozen and self._seen:
            if np.array_equal(frame, self._previous):
                return Verdict("frozen", "equal to the frame before")
        reasons = [*self._gap(timestamp), *self._cut(thin)]
        np.copyto(self._previous, frame)
        self._seen = True
        if timestamp is not None:
            self._used = timestamp
        forgets: list[Forget] = ["keep", *(forget for forget, _ in reasons)]
        forget = max(forgets, key=_ORDER.index)
        return Verdict("ok", "; ".join(reason for _, reason in reasons), forget)

    def _wrong(self, frame: Any, timestamp: float | None) -> str:
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            kind = getattr(frame, "dtype", type(frame).__name__)
            return f"frame is {kind}; it must be a uint8 array"
        if frame.shape != self._shape:
            height, width, _ = self._shape
            if self._policy.other_sizes == "letterbox" and frame.shape[2:] == (3,):
                return f"frame is {canvas_fault(frame.shape[:2], (height, width))}"
            return f"frame is {list(frame.shape)}; it must be [{height}, {width}, 3]"
        if timestamp is not None and not _is_finite(timestamp):
            return f"timestamp is {timestamp!r}; it must be a finite number"
        return ""

    def _behind(self, timestamp: float) -> float | None:
        """Returns by how many seconds a frame is late; None if it is in order.

        A run of late frames that are ordered among themselves means that an earlier
        timestamp was wrong. They are then accepted as in order, and the lost frames
        counted because of the wrong timestamp are subtracted again.
        """
        if self._arrived is not None and timestamp <= self._arrived:
            newer = not self._late or timestamp > self._late[-1]
            self._late = [*self._late, timestamp] if newer else [timestamp]
            if len(self._late) < _DISAGREEING:
                return self._arrived - timestamp
            self.counts["clock_rebased"] += 1
            self.counts["lost"] -= self._lost
            self._arrived, self._used = self._late[-2], None
        self._late, self._lost = [], 0
        if self._arrived is not None and self._policy.period is not None:
            frames = round((timestamp - self._arrived) / self._policy.period)
            self._lost = max(0, frames - 1)
            self.counts["lost"] += self._lost
        self._arrived = timestamp
        return None

    def _gap(self, timestamp: float | None) -> list[tuple[Forget, str]]:
        limit = self._policy.max_gap
        if timestamp is None or self._used is None or limit is None:
            return []
        gap = timestamp - self._used
        if gap <= limit:
            return []
        self.counts["gaps"] += 1
        return [(self._policy.on_gap, f"gap of {gap:.3f} s")]

    def _cut(self, thin: np.ndarray) -> list[tuple[Forget, str]]:
        limit = self._policy.scene_cut
        if limit is None or not self._seen:
            return []
        difference = np.abs(thin - self._previous[_THINNED, _THINNED]).mean()
        if difference < limit:
            return []
        self.counts["scene_cuts"] += 1
        return [(self._policy.on_cut, f"scene cut, frames differ by {difference:.0f}")]
