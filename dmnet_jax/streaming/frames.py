"""What a live camera sends, and the rule for each kind of it.

A frame that is not used is counted, gives no labels and leaves the memory alone, so
that nothing of it is ever read later.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from dmnet_jax.streaming.letterbox import canvas_fault, letterbox

Forget = Literal["keep", "reset-local", "reset-all"]
Status = Literal["ok", "refused", "late", "blank", "frozen", "suspect"]

_ORDER: list[Forget] = ["keep", "reset-local", "reset-all"]
_DISAGREEING = 3  # late frames in a row, each newer than the last: the clock was wrong
_THINNED = slice(None, None, 8)  # rows and columns that judge a picture's content


@dataclass(frozen=True)
class Policy:
    """What is done with frames that are not simply the next one.

    Attributes:
        skip_blank: Do not use a frame whose pixels hardly differ (black, or covered).
        skip_frozen: Do not use a frame that equals the one before it, bit for bit.
        period: Seconds from frame to frame, by which lost frames are counted.
        max_gap: Seconds between two frames after which `on_gap` applies.
        on_gap: What is forgotten after a gap.
        scene_cut: Mean difference to the frame before, of 255, from which a frame
            begins another scene and `on_cut` applies. None: cuts are not looked for.
        on_cut: What is forgotten at a scene cut.
        other_sizes: What is done with a frame of another size or aspect than the
            network's: it is letterboxed and its labels mapped back, or refused.

    Raises:
        ValueError: an option has a value that it cannot have; names both.
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
    """Raises ValueError for what is neither None nor a finite number above zero."""
    if value is not None and not (_is_finite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}; it must be a finite number above 0")


class Verdict(NamedTuple):
    """What becomes of a frame.

    Attributes:
        status: "ok" if it is to be used.
        reason: why not, or why something is forgotten; may be empty.
        forget: what the memory forgets before the frame.
    """

    status: Status
    reason: str = ""
    forget: Forget = "keep"


class FrameCheck:
    """Judges the frames of one stream, in the order in which they arrive.

    Args:
        size: (H, W) of the frames.
        policy: rules.

    Attributes:
        counts: of what was seen: JSON.
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
        self._used: float | None = None  # and of the last one that was used
        self._late: list[float] = []  # timestamps since then that were not newer
        self._lost = 0  # what the last timestamp in order added to the lost ones

    def forget(self) -> None:
        """The next frame is the first of a video: nothing is compared with it."""
        self._seen, self._arrived, self._used = False, None, None
        self._late, self._lost = [], 0

    def fitted(self, frame: Any) -> Any:
        """The frame at the network's size, where the policy says so."""
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
        """The rule that applies to a frame.

        Args:
            frame: as `fitted` gives it.
            timestamp: in seconds, if known.
            damage: what its decoder complained about, if it did.
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
        """By how much a frame is late; None if it is in order, which is then noted.

        Where frames go on behind the clock, in an order of their own, the clock was
        wrong: they are in order, and what the wrong timestamp counted is taken back.
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
