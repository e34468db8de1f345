"""A thread that steps a session and publishes an event for each frame to the page."""

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.corruption import TRAINED, UNGRADED, UNSEEN
from data_pipelines.io.images import resize_label
from dmnet_jax.live import commands, pictures
from dmnet_jax.live.degrade import OFF, Choice, Degrade
from dmnet_jax.live.playback import Playback, Shot
from dmnet_jax.live.sessions import Sessions
from dmnet_jax.predict.network import Network
from dmnet_jax.predict.outputs import class_areas, class_colors
from dmnet_jax.streaming import Result, Session
from dmnet_jax.video.overlay import places
from dmnet_jax.video.sources import RATE, Source, SourceError, open_source

HISTORY = 300
"""Number of frames shown in the curves."""

SHOWN = 24
"""Number of admitted frames shown, the newest ones."""

FIRST = "first"
"""Name of the source that the engine starts with, among its sources."""


class Engine:
    """Runs a session on a source in its own thread.

    The video plays from the start; masks follow as soon as the step is compiled.

        with Engine(network, source, about) as engine:
            number, event = engine.wait(after=0, timeout=1.0)

    Args:
        network: the network.
        source: the first source of frames.
        about: JSON for the page: "source" and "checkpoint".
        sources: further sources that the page may open, by name; see `open_source`.
        single: loads the same network without its memory, to be shown beside it; None
            if there is nothing to compare.

    Attributes:
        about: JSON for the page: what does not change from frame to frame.
        failure: why the engine stopped; empty while it runs.
    """

    def __init__(
        self,
        network: Network,
        source: Source,
        about: dict[str, Any],
        *,
        sources: Mapping[str, str] | None = None,
        single: Callable[[], Network] | None = None,
    ) -> None:
        self._network = network
        self._names = [info["name"] for info in network.classes]
        self._colors = class_colors(network.classes)
        self._sources = dict(sources or {})
        self.about = {
            **about,
            "sources": {FIRST: about["source"], **{n: n for n in self._sources}},
            "classes": [
                {"name": name, "color": list(color)}
                for name, color in zip(self._names, self._colors, strict=True)
            ],
            "local_memory": network.memories.local,
            "global_memory": network.memories.global_,
            "global_size": network.global_size if network.memories.global_ else 0,
            "state": bool(network.state),
            "compiled": network.compiled,
            "can_compare": single is not None,
            "degrade": {
                "kinds": [OFF, *UNSEEN, *TRAINED],
                "ungraded": [OFF, *UNGRADED],
            },
        }
        self._changed = threading.Condition()
        self._commands: deque[dict[str, Any]] = deque()
        self._number, self._event = 0, {}
        self.history: deque[list[Any]] = deque(maxlen=HISTORY)
        self.thumbs: dict[str, str] = {}
        self._thumb_of: dict[int, str] = {}  # by the frame's index in the memory
        self._frames = self._used = 0
        self._degrade = Degrade()
        self._first, self._playback = source, Playback(source)
        self._notice, self._source_name, self._upload = "", FIRST, ""
        self._sessions = Sessions(lambda: network)
        self._session: Session | None = None
        self._single = Sessions(single) if single else None
        self._compare = False
        self.failure = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wait(self, after: int, timeout: float) -> tuple[int, dict[str, Any]]:
        """Waits for an event later than `after`; returns the newest one and its number.

        Returns the current event if there is no new one within `timeout` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > after, timeout)
            return self._number, self._event

    def order(self, command: dict[str, Any]) -> None:
        """Executes a command of the page, see `commands.check`.

        What concerns the session is done before the next frame.

        Raises:
            ValueError: the command is not valid, or not possible with this source or
                network.
        """
        commands.check(command)
        if "paused" in command:
            self._playback.paused = command["paused"]
        elif "seek" in command:
            self._playback.seek(command["seek"])
        elif "source" in command:
            self._open(command["source"])
        elif "compare" in command:
            if command["compare"] and self._single is None:
                raise ValueError("this network has no memory to compare")
            self._compare = command["compare"]
        else:
            self._commands.append(command)

    def open_file(self, path: Path, name: str) -> None:
        """Plays a file that a viewer sent.

        Raises:
            SourceError: it is not a video or image that can be read.
        """
        try:
            self._playback.open(open_source(str(path)))
        except SourceError as error:
            raise SourceError(str(error).replace(str(path), name)) from error
        self._source_name, self._notice, self._upload = name, "", str(path)

    def _open(self, name: str) -> None:
        if name == FIRST:
            source = self._first
        elif name in self._sources:
            source = open_source(self._sources[name])
        else:
            raise ValueError(f"there is no source {name!r}")
        self._playback.open(source)
        self._source_name, self._notice, self._upload = name, "", ""

    def join(self) -> None:
        """Waits until the engine stops."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._play()
            reason = "" if self._playback.stopped else "the source has ended"
        except (SourceError, OSError, ValueError) as error:
            reason = str(error)
        except Exception as error:  # any error is shown on the page and in the terminal
            reason = repr(error)
        if reason:
            self.failure = reason
            self._publish({**self._event, "error": reason})

    def _play(self) -> None:
        while not self._playback.stopped:
            try:
                for shot in self._playback.shots():
                    changes = self._obey()
                    if shot is None:
                        self._idle(changes)
                    else:
                        self._show(shot)
                if self._playback.source is self._first:
                    return
                raise SourceError("the source has ended")
            except ValueError as error:  # of which a SourceError is one
                if self._playback.source is self._first:
                    raise
                text = str(error)
                if self._upload:  # the viewer does not know where it is stored
                    text = text.replace(f"{self._upload}: ", "")
                notice = f"{self._source_name}: {text}"
                self._open(FIRST)
                self._notice = notice

    def _idle(self, changes: dict[str, Any]) -> None:
        """Publishes what a viewer changed while no frame is due."""
        changes["paused"] = self._playback.paused
        if self._event and any(self._event[name] != changes[name] for name in changes):
            self._publish({**self._event, **changes})

    def _show(self, shot: Shot) -> None:
        """Steps one frame, if the session is ready, and publishes it."""
        captured, degraded = shot.captured, self._degrade.choice.description
        frame = self._degrade(captured.image)
        image = pictures.reduced(frame, pictures.LONGEST)
        event = {
            "index": self._frames,
            "name": captured.name,
            "status": "loading",
            "size": list(image.shape[:2]),
            "image": pictures.jpeg(image),
            "seconds": round(shot.seconds, 3),
            "duration": self._playback.duration,
            "source": self._source_name,
            "notice": self._notice,
            "degraded": degraded,
            "degrade": self._degrade.choice._asdict(),
            "paused": self._playback.paused,
            "dropped": shot.dropped,
        }
        self._frames += 1
        wanted = captured.image.shape[:2], 1 / (self._playback.source.rate or RATE)
        session = self._sessions.session(*wanted)
        if session is not None:
            self._use(session, shot)
            result = session.step(frame, shot.arrived, captured.damage)
            event |= self._result(session, result, image.shape[:2])
            event |= self._remembered(session, result, frame, event["index"])
            event |= self._compared(wanted, shot, frame, image.shape[:2])
            self.history.append(event["point"])
        self._publish(event)

    def _use(self, session: Session, shot: Shot) -> None:
        """Prepares a session for a frame that may not follow the frame before."""
        if session is not self._session:
            self._session, self._calibrated = session, _limited(session.thresholds)
            self._thumb_of, self._used = {}, 0
        elif shot.begins:
            session.reset()

    def _result(
        self, session: Session, result: Result, size: tuple[int, int]
    ) -> dict[str, Any]:
        return {
            "status": result.status,
            "reason": result.reason,
            **self._painted(result, size),
            "areas": (
                {} if result.labels is None else class_areas(result.labels, self._names)
            ),
            "trust": pictures.trust(result.trust),
            "forgot": result.forgot,
            "thresholds": _limited(session.thresholds),
            "calibrated": self._calibrated,
            "stats": session.stats(),
        }

    def _painted(self, result: Result, size: tuple[int, int]) -> dict[str, Any]:
        """Returns the mask of a result, and where to write the classes' numbers."""
        if result.labels is None:
            return {"mask": None, "places": []}
        label = resize_label(result.labels, size)
        return {"mask": pictures.mask(label, self._colors), "places": places(label)}

    def _remembered(
        self, session: Session, result: Result, frame: np.ndarray, index: int
    ) -> dict[str, Any]:
        """Returns which frames the memories hold, as names of thumbnails."""
        if result.forgot == "reset-all":
            self._thumb_of, self._used = {}, 0
        name, recent, local, count = f"{index}", (), (), 0
        if result.seconds:  # the frame was run through the network
            self._thumb_of[self._used] = name
            self._used += 1
        if self._network.compiled:
            remembered = session.remembered()
            local, recent = remembered.local, remembered.global_[-SHOWN:]
            count = len(remembered.global_)
        held = {*local, *recent}
        self._thumb_of = {n: t for n, t in self._thumb_of.items() if n in held}
        if name in self._thumb_of.values():
            self.thumbs[name] = pictures.jpeg(
                pictures.reduced(frame, pictures.THUMBNAIL)
            )
        alive = set(self._thumb_of.values())
        self.thumbs = {t: data for t, data in self.thumbs.items() if t in alive}
        return {
            "point": [
                index,
                _finite(result.confidence),
                _finite(result.similarity),
                result.admitted,
                round(1e3 * result.seconds, 2),
                self._degrade.choice.kind != OFF,
            ],
            "local": [self._thumb_of.get(n, "") for n in local],
            "global": [self._thumb_of.get(n, "") for n in recent],
            "global_count": count,
        }

    def _compared(
        self,
        wanted: tuple[tuple[int, int], float],
        shot: Shot,
        frame: np.ndarray,
        size: tuple[int, int],
    ) -> dict[str, Any]:
        """Returns the result of the network without its memory, if it is asked for."""
        if self._single is None or not self._compare:
            return {"comparing": "off", "single": None}
        single = self._single.session(*wanted)
        if single is None:
            return {"comparing": "loading", "single": None}
        if shot.begins:
            single.reset()
        result = single.step(frame, shot.arrived, shot.captured.damage)
        return {"comparing": "on", "single": self._painted(result, size)}

    def _obey(self) -> dict[str, Any]:
        """Executes queued commands; returns the resulting changes to the last event."""
        changes: dict[str, Any] = {}
        while self._commands:
            command = self._commands.popleft()
            if choice := Choice.of(command):
                self._degrade.choose(choice)
                changes["degrade"] = choice._asdict()
            elif self._session is None or "thresholds" not in self._event:
                continue  # nothing is compiled yet
            elif "forget" not in command:
                if self._network.compiled:
                    self._session.set_thresholds(**command)
                    changes["thresholds"] = _limited(self._session.thresholds)
            else:
                self._session.reset(command["forget"])
                changes["local"] = []
                if command["forget"] == "reset-all":
                    changes |= {"global": [], "global_count": 0}
        return changes

    def _publish(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._number += 1
            self._event = event
            self._changed.notify_all()

    def __enter__(self) -> "Engine":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._playback.stop()
        self._thread.join(timeout=10)
        self._sessions.shutdown()
        if self._single:
            self._single.shutdown()


def _limited(thresholds: dict[str, float] | None) -> dict[str, float]:
    """Limits thresholds to finite values, because JSON has no infinity."""
    return {n: min(max(x, -1e9), 1e9) for n, x in (thresholds or {}).items()}


def _finite(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
