"""A video stream to frames, packet by packet, each with what is wrong with it.

What the decoder says of the frame itself counts, not what it remarks: a frame is
damaged if its decoder had to fill something in (`is_corrupt`), which the decoders of
H.264, MPEG and their kin know, and HEVC's where it misses a reference. Two more ways
help where a decoder does not know:

- codecs whose pictures stand alone (MJPEG and others) are decoded strictly; what that
  refuses is decoded again leniently, to be shown, and marked;
- the decoders of HEVC and FFV1 only write to their log, so that is read, for this
  thread and this packet alone, and the frame that the packet became is marked.

A packet that gives no frame at all is left out and counted. Frames after a damaged one
may show remains of it until the next key frame.

Some damage no decoder sees: VP8's tells none at all, and where arithmetic coding is
in use (H.264 with CABAC, HEVC) wrong bits now and then decode to a wrong picture.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.io.images import MAX_PIXELS

CONCEALED = "the decoder filled in what is damaged or missing"
REFUSED = "the decoder refused it as damaged"

# Decoders that say only in their log that a picture is damaged.
_LOGGING = ("hevc", "ffv1")

# What they log of what comes along with pictures.
_HARMLESS = re.compile(r"SEI|VPS|RPU|dovi|hdr|T\.?35", re.IGNORECASE)
_LOST_SLICE = re.compile(r"undecodable NALU: ([12]?\d|3[01])\b")


class Decoded(NamedTuple):
    """A frame as its decoder gave it.

    Attributes:
        frame: PyAV's.
        damage: what is wrong with it; empty for a clean one.
    """

    frame: Any
    damage: str


class Decoder:
    """The frames of one video stream, in the order in which they are shown.

    To be entered as a context.

    Args:
        av: the module.
        stream: PyAV's, of an open container, nothing of it decoded yet.

    Attributes:
        refused: packets that gave no frame, so far.
        reason: why the last of them did not.
    """

    def __init__(self, av: Any, stream: Any) -> None:
        self._av, self._codec = av, stream.codec_context
        self.refused, self.reason = 0, ""
        self._damaged: dict[int, str] = {}  # by the packet's number
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
        """What comes out when `packet` goes in; an empty packet gives what is left."""
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
        # PyAV finds it again by its identity, so it must be one of its own.
        packet.opaque = [number]
        with _log.heard(self._av.logging) as spoken:
            frames = self._codec.decode(packet)
        said = _damage_in(spoken, self._av.logging.ERROR)
        if said:
            # A frame that is never shown leaves its remark behind; few are kept.
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
    """Turns and mirrors the pictures of one stream as its display matrix says.

    Angles between the right ones are left alone.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[bool, int, int]] = {}  # by PyAV's rotation

    def upright(self, frame: Any, image: np.ndarray) -> np.ndarray:
        """A frame as it is to be shown.

        Args:
            frame: PyAV's.
            image: its pixels, [H, W, 3].

        Returns:
            [H, W, 3] or [W, H, 3].
        """
        # Of the first frame alone: side data that was asked for holds a frame's memory
        # until the garbage collector comes.
        angle = frame.rotation
        if angle not in self._known:
            self._known[angle] = _orientation(frame)
        transposed, down, right = self._known[angle]
        if transposed:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[::down, ::right])


def _orientation(frame: Any) -> tuple[bool, int, int]:
    """Whether rows and columns change places, and then the steps through both."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # there is another kind beside it that PyAV does not know
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
    """Damaged frames come out too; one thread, whose log is this one's.

    With more the decoder of H.264 does not tell damage.
    """
    flags = av.codec.context.Flags
    codec.flags |= flags.output_corrupt | flags.copy_opaque
    codec.thread_type, codec.thread_count = "NONE", 1
    codec.options = {"max_pixels": str(MAX_PIXELS), **options}


def _like(av: Any, codec: Any) -> Any:
    """Another decoder for the same stream; some know its size from the file alone."""
    twin = av.CodecContext.create(codec.codec, "r")
    for name in ("extradata", "width", "height", "bits_per_coded_sample", "codec_tag"):
        setattr(twin, name, getattr(codec, name))
    _set_up(av, twin)
    return twin


def _damage_in(spoken: list[tuple[int, str, str]], limit: int) -> str:
    for level, _, text in spoken:
        if (level <= limit and not _HARMLESS.search(text)) or _LOST_SLICE.search(text):
            return text.strip()
    return ""


class _Listening:
    """PyAV's log at the level of warnings while somebody listens, then as it was.

    The level is the whole process's; what others log meanwhile goes where it went
    before: nowhere, if the log was off.
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
        """What this thread's decoder logs inside."""
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
