"""A thread that steps a session and publishes an event for each frame to the page."""

import base64
import io
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.corruption import TRAINED, UNGRADED, UNSEEN
from data_pipelines.io.images import resize_label
from dmnet_jax.live.degrade import OFF, Choice, Degrade
from dmnet_jax.predict.network import session_for
from dmnet_jax.predict.outputs import class_areas, class_colors
from dmnet_jax.predict.run import LIVE
from dmnet_jax.streaming import Result, Session, TrainedRun
from dmnet_jax.video.capture import Every, Latest, first_frame
from dmnet_jax.video.overlay import places
from dmnet_jax.video.sources import RATE, Captured, Source, SourceError

HISTORY = 300
"""Number of frames shown in the curves."""

SHOWN = 24
"""Number of admitted frames shown, the newest ones."""

_LONGEST = 720
_THUMB = 120


class Engine:
    """Runs a session on a source in its own thread.

    A camera is read in real time: only its latest frame is used. A file is played in a
    loop with every frame, at its frame rate or slower.

        with Engine(trained, source, about) as engine:
            number, event = engine.wait(after=0, timeout=1.0)

    Args:
        trained: the network.
        source: source of frames.
        about: JSON for the page: "source" and "checkpoint".

    Attributes:
        failure: why the engine stopped; empty while it runs.
    """

    def __init__(self, trained: TrainedRun, source: Source, about: dict[str, Any]):
        classes = trained.about["classes"]
        self._trained, self._source = trained, source
        self._names = [info["name"] for info in classes]
        self._colors = class_colors(classes)
        self.about = {
            **about,
            "classes": [
                {"name": name, "color": list(color)}
                for name, color in zip(self._names, self._colors, strict=True)
            ],
            "local_memory": trained.model.memories.local,
            "global_size": (
                trained.model.global_size if trained.model.memories.global_ else 0
            ),
            "degrade": {
                "kinds": [OFF, *UNSEEN, *TRAINED],
                "ungraded": [OFF, *UNGRADED],
            },
        }
        self._changed = threading.Condition()
        self._orders: deque[dict[str, Any]] = deque()
        self._number, self._event = 0, {}
        self.history: deque[list[Any]] = deque(maxlen=HISTORY)
        self.thumbs: dict[str, str] = {}
        self._thumb_of: dict[int, str] = {}  # by the frame's index in the memory
        self._used = self._dropped = 0
        self._paused = False
        self._degrade = Degrade()
        self.failure = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wait(self, after: int, timeout: float) -> tuple[int, dict[str, Any]]:
        """Waits for an event later than `after`; returns the newest one and its number.

        Returns the current event if there is no new one within `timeout` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > after, timeout)
            return self._number, self._event

    def order(self, order: dict[str, Any]) -> None:
        """Queues a command from the page; it is executed before the next frame.

        Args:
            order: {"paused": bool}, {"forget": "reset-local" | "reset-all"},
                {"min_confidence": float, "max_similarity": float}, or
                {"degrade": kind of `corruption.KINDS` or "none", "severity": 1 to 5}.

        Raises:
            ValueError: the command is none of these.
        """
        names, values = set(order), list(order.values())
        if names == {"paused"} and isinstance(order["paused"], bool):
            self._paused = order["paused"]
        elif names == {"forget"} and values[0] in ("reset-local", "reset-all"):
            self._orders.append(order)
        elif names == {"min_confidence", "max_similarity"} and all(
            isinstance(x, int | float) and math.isfinite(x) for x in values
        ):
            self._orders.append(order)
        elif Choice.of(order):
            self._orders.append(order)
        else:
            raise ValueError("unknown command")

    def join(self) -> None:
        """Waits until the engine stops."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._play()
            told = "" if self._stop.is_set() else "the source has ended"
        except (SourceError, OSError, ValueError) as error:
            told = str(error)
        except Exception as error:  # any error is shown on the page and in the terminal
            told = repr(error)
        if told:
            self.failure = told
            self._publish({**self._event, "error": told})

    def _play(self) -> None:
        first = first_frame(self._source, self._stop.is_set)
        if first is None:
            return
        size = first.image.shape[:2]
        deadline = 1 / (self._source.rate or RATE)
        session = session_for(self._trained, size, policy=LIVE, deadline=deadline)
        self._calibrated = _limited(session.thresholds)
        self._session = session
        with session:
            for captured, arrived in (
                self._live() if self._source.live else self._file()
            ):
                self._obey()
                if captured is None:
                    session.reset()  # a file starts again
                else:
                    self._step(session, captured, arrived)

    def _step(
        self, session: Session, captured: Captured, arrived: float | None
    ) -> None:
        """Steps one frame and publishes the result."""
        degraded = self._degrade.choice.told()
        frame = self._degrade(captured.image)
        result = session.step(frame, arrived, captured.damage)
        if result.forgot == "reset-all":
            self._thumb_of, self._used = {}, 0
        image = _reduced(frame, _LONGEST)
        thumb = f"{result.index}"
        if result.seconds:  # the frame was run through the network
            self._thumb_of[self._used] = thumb
            self.thumbs[thumb] = _jpeg(_reduced(frame, _THUMB))
            self._used += 1
        remembered = session.remembered()
        recent = remembered.global_[-SHOWN:]
        kept = {*remembered.local, *recent}
        self._thumb_of = {n: t for n, t in self._thumb_of.items() if n in kept}
        alive = set(self._thumb_of.values())
        self.thumbs = {t: data for t, data in self.thumbs.items() if t in alive}
        r, s = _number(result.confidence), _number(result.similarity)
        milliseconds = round(1e3 * result.seconds, 2)
        self.history.append(
            [result.index, r, s, result.admitted, milliseconds, bool(degraded)]
        )
        self._publish(
            {
                "index": result.index,
                "name": captured.name,
                "status": result.status,
                "reason": result.reason,
                "size": list(image.shape[:2]),
                "image": _jpeg(image),
                "degraded": degraded,
                **self._labels(result, image.shape[:2]),
                "trust": _trust(result.trust),
                "point": self.history[-1],
                "forgot": result.forgot,
                "local": [self._thumb_of.get(n, "") for n in remembered.local],
                "global": [self._thumb_of.get(n, "") for n in recent],
                "global_count": len(remembered.global_),
                "thresholds": _limited(session.thresholds),
                "calibrated": self._calibrated,
                "degrade": self._degrade.choice._asdict(),
                "paused": self._paused,
                "stats": session.stats(),
                "dropped": self._dropped,
            }
        )

    def _labels(self, result: Result, size: tuple[int, int]) -> dict[str, Any]:
        if result.labels is None:
            return {"mask": None, "areas": {}, "places": []}
        label = resize_label(result.labels, size)
        return {
            "mask": self._painted(label),
            "areas": class_areas(result.labels, self._names),
            "places": places(label),
        }

    def _painted(self, label: np.ndarray) -> str:
        """Returns a palette PNG with transparent background as a data URL."""
        picture = Image.fromarray(label)
        picture.putpalette([channel for color in self._colors for channel in color])
        return _png(picture, transparency=0)

    def _obey(self) -> dict[str, Any]:
        """Executes queued commands; returns the resulting changes to the last event."""
        shown: dict[str, Any] = {}
        while self._orders:
            order = self._orders.popleft()
            if choice := Choice.of(order):
                self._degrade.choose(choice)
                shown["degrade"] = choice._asdict()
                continue
            if "forget" not in order:
                self._session.set_thresholds(**order)
                shown["thresholds"] = _limited(self._session.thresholds)
                continue
            self._session.reset(order["forget"])
            shown["local"] = []
            if order["forget"] == "reset-all":
                shown |= {"global": [], "global_count": 0}
        return shown

    def _publish(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._number += 1
            self._event = event
            self._changed.notify_all()

    def _wait_while_paused(self) -> None:
        told = False
        while self._paused and not self._stop.is_set():
            shown = self._obey()
            if self._event and (shown or not told):
                self._publish({**self._event, **shown, "paused": True})
                told = True
            self._stop.wait(0.05)

    def _live(self) -> Iterator[tuple[Captured | None, float | None]]:
        with Latest(self._source) as latest:
            while not self._stop.is_set():
                self._wait_while_paused()
                try:
                    timed = latest.next(0.5, self._stop.is_set)
                except TimeoutError:
                    continue
                if timed is None:
                    return
                self._dropped = latest.dropped
                yield timed.captured, timed.arrived

    def _file(self) -> Iterator[tuple[Captured | None, float | None]]:
        due, period = time.monotonic(), 1 / (self._source.rate or RATE)
        while True:
            with Every(self._source) as frames:
                while (timed := frames.next(stopping=self._stop.is_set)) is not None:
                    self._wait_while_paused()
                    self._stop.wait(max(0.0, due - time.monotonic()))
                    if self._stop.is_set():
                        return
                    due = max(due + period, time.monotonic())
                    yield timed.captured, None
            if self._stop.is_set():
                return
            yield None, None

    def __enter__(self) -> "Engine":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)


def _reduced(image: np.ndarray, longest: int) -> np.ndarray:
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height)))


def _jpeg(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _png(picture: Image.Image, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1, **options)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _trust(trust: np.ndarray | None) -> dict[str, Any] | None:
    """Returns a grayscale image, white where the frame is trusted, and the mean."""
    if trust is None:
        return None
    gray = np.rint(255 * trust).astype(np.uint8)
    return {"image": _png(Image.fromarray(gray)), "mean": round(float(trust.mean()), 4)}


def _limited(thresholds: dict[str, float] | None) -> dict[str, float]:
    """Limits thresholds to finite values, because JSON has no infinity."""
    return {n: min(max(x, -1e9), 1e9) for n, x in (thresholds or {}).items()}


def _number(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
