"""Decodes a video stream packet by packet and detects damaged frames.

A frame is damaged if the decoder flags it as such (`is_corrupt`), that is, if it had to
conceal missing data. The decoders of H.264 and the MPEG family set this flag, and HEVC
sets it for missing references. For other cases there are two more checks:

- Intra-only codecs (MJPEG and others) are decoded strictly. Packets that fail are
  decoded again leniently for display, and the frame is marked.
- The decoders of HEVC and FFV1 report damage only in their log. The log is captured for
  this thread and packet, and the resulting frame is marked.

Packets without a frame are skipped and counted. Frames after a damaged one may show
artifacts until the next key frame.

Some damage is not detected: VP8 reports none at all, and with arithmetic coding (H.264
with CABAC, HEVC) flipped bits sometimes decode to a wrong picture without an error.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.io.images import MAX_PIXELS

CONCEALED = "the decoder concealed damaged or missing data"
REFUSED = "the decoder rejected it as damaged"

# Decoders that report damaged frames only in their log.
_LOGGING = ("hevc", "ffv1")

# Their log messages about side data, which does not affect the frame.
_HARMLESS = re.compile(r"SEI|VPS|RPU|dovi|hdr|T\.?35", re.IGNORECASE)
_LOST_SLICE = re.compile(r"undecodable NALU: ([12]?\d|3[01])\b")


class Decoded(NamedTuple):
    """A decoded frame.

    Attributes:
        frame: PyAV frame.
        damage: description of the damage; empty for a clean frame.
    """

    frame: Any
    damage: str


class Decoder:
    """Decodes the frames of one video stream, in presentation order.

    Use it as a context manager.

    Args:
        av: the PyAV module.
        stream: PyAV stream of an open container that has not been decoded yet.

    Attributes:
        refused: number of packets without a frame so far.
        reason: error message for the last of them.
    """

    def __init__(self, av: Any, stream: Any) -> None:
        self._av, self._codec = av, stream.codec_context
        self.refused, self.reason = 0, ""
        self._damaged: dict[int, str] = {}  # by packet number
        self._count = 0
        self._logs = self._codec.name in _LOGGING
        self._lenient = _like(av, self._codec) if self._codec.codec.intra_only else None
        strict = {"err_detect": "explode"} if self._lenient else {}
        _set_up(av, self._codec, **strict)

    def __enter__(self) -> "Decoder":
        if self._logs:
            _log.begin(self._av.logging)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._logs:
            _log.end()

    def frames(self, packet: Any) -> Iterator[Decoded]:
        """Decodes a packet and yields frames; an empty packet flushes the decoder."""
        number = self._count
        self._count += 1
        try:
            frames = self._decode(packet, number)
        except self._av.FFmpegError as error:
            self.reason = error.strerror or str(error)
            yield from self._leniently(packet)
            return
        for frame in frames:
            number = frame.opaque[0] if frame.opaque else -1
            damage = self._damaged.pop(number, "")
            yield Decoded(frame, CONCEALED if frame.is_corrupt else damage)

    def _decode(self, packet: Any, number: int) -> list[Any]:
        if not self._logs:
            return self._codec.decode(packet)
        # PyAV looks `opaque` up by identity, so each packet needs its own object.
        packet.opaque = [number]
        with _log.heard(self._av.logging) as spoken:
            frames = self._codec.decode(packet)
        said = _damage_in(spoken, self._av.logging.ERROR)
        if said:
            # Entries of frames that are never output remain, so only the last are kept.
            self._damaged = dict([*self._damaged.items()][-64:])
            self._damaged[number] = said
        return frames

    def _leniently(self, packet: Any) -> Iterator[Decoded]:
        try:
            frames = self._lenient.decode(packet) if self._lenient else []
        except self._av.FFmpegError:
            frames = []
        if not frames and packet.size:
            self.refused += 1
        for frame in frames:
            yield Decoded(frame, REFUSED)


class Display:
    """Rotates and flips the frames of one stream by its display matrix.

    Angles that are not multiples of 90 degrees are ignored.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[bool, int, int]] = {}  # by PyAV's rotation

    def upright(self, frame: Any, image: np.ndarray) -> np.ndarray:
        """Applies the display matrix to a frame.

        Args:
            frame: PyAV frame.
            image: pixels of the frame, [H, W, 3].

        Returns:
            [H, W, 3] or [W, H, 3].
        """
        # Side data is read only once per rotation, because accessing it keeps the
        # frame's memory alive until garbage collection.
        angle = frame.rotation
        if angle not in self._known:
            self._known[angle] = _orientation(frame)
        transposed, down, right = self._known[angle]
        if transposed:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[::down, ::right])


def _orientation(frame: Any) -> tuple[bool, int, int]:
    """Returns whether to transpose, and then the row and column steps (1 or -1)."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # another kind of side data that PyAV does not know
        turns, rest = divmod(frame.rotation, 90)
        way = (False, 1, 1), (True, -1, 1), (False, -1, -1), (True, 1, -1)
        return way[0 if rest else turns % 4]
    if data is None:
        return False, 1, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    if b == c == 0 and a and d:
        return False, 1 if d > 0 else -1, 1 if a > 0 else -1
    if a == d == 0 and b and c:
        return True, 1 if b > 0 else -1, 1 if c > 0 else -1
    return False, 1, 1


def _set_up(av: Any, codec: Any, **options: str) -> None:
    """Configures a codec to output damaged frames and to use a single thread.

    With one thread, the log belongs to the calling thread. With several threads, the
    H.264 decoder does not report damage.
    """
    flags = av.codec.context.Flags
    codec.flags |= flags.output_corrupt | flags.copy_opaque
    codec.thread_type, codec.thread_count = "NONE", 1
    codec.options = {"max_pixels": str(MAX_PIXELS), **options}


def _like(av: Any, codec: Any) -> Any:
    """Creates another decoder for the same stream.

    The parameters are copied because some codecs get them only from the container.
    """
    context = av.CodecContext.create(codec.codec, "r")
    for name in ("extradata", "width", "height", "bits_per_coded_sample", "codec_tag"):
        setattr(context, name, getattr(codec, name))
    _set_up(av, context)
    return context


def _damage_in(spoken: list[tuple[int, str, str]], limit: int) -> str:
    for level, _, text in spoken:
        if (level <= limit and not _HARMLESS.search(text)) or _LOST_SLICE.search(text):
            return text.strip()
    return ""


class _Listening:
    """Sets PyAV's log level to warnings while there are listeners, then restores it.

    The level is global to the process. Messages of other threads are still handled as
    before: they are discarded if the log was off.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._others: list[Any] = []
        self._restore = ExitStack()

    def begin(self, log: Any) -> None:
        with self._lock:
            self._listeners += 1
            if self._listeners > 1:
                return
            level, skip = log.get_level(), log.get_skip_repeated()
            if level is None:
                everything = log.Capture(local=False)
                self._others = self._restore.enter_context(everything)
            self._restore.callback(log.set_skip_repeated, skip)
            self._restore.callback(log.set_level, level)
            log.set_skip_repeated(False)
            log.set_level(max(log.WARNING, level or 0))

    @contextmanager
    def heard(self, log: Any) -> Iterator[list[tuple[int, str, str]]]:
        """Captures the log messages of this thread's decoder."""
        try:
            with log.Capture() as spoken:
                yield spoken
        finally:
            self._others.clear()

    def end(self) -> None:
        with self._lock:
            self._listeners -= 1
            if not self._listeners:
                self._restore.close()


_log = _Listening()
