"""Video in and out by PyAV (`pip install 'dmnet-jax[video]'`); nothing else needs it.

A damaged video does not fail: its decoder fills in what is missing and writes to its
log. So the log is listened to, and a frame during whose decoding it spoke is marked.
Frames after it may show remains of the damage until the next key frame.
"""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dmnet_jax.streaming.sources import RATE, Captured, SourceError

INSTALL = "pip install 'dmnet-jax[video]'"
TIMEOUT = (10.0, 5.0)
"""Seconds to wait for a stream to open, and for its next packet."""

_TICK = Fraction(1, 1000)
_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


def pyav() -> Any:
    """The module `av`.

    Raises:
        SourceError: it is not installed.
    """
    try:
        import av
        import av.logging
    except ImportError as error:
        raise SourceError(f"video needs PyAV: {INSTALL} ({error})") from error
    return av


@dataclass(frozen=True)
class VideoFile:
    """A video file, every frame.

    Raises:
        SourceError: when made: PyAV is missing, or the file holds no video.
    """

    path: Path
    live: bool = False

    def __post_init__(self) -> None:
        with _opened(str(self.path)):
            pass

    @property
    def rate(self) -> float | None:
        with _opened(str(self.path)) as container:
            rate = container.streams.video[0].average_rate
            return float(rate) if rate else None

    def __iter__(self) -> Iterator[Captured]:
        with _opened(str(self.path)) as container:
            yield from _decoded(container, str(self.path))


@dataclass(frozen=True)
class Camera:
    """A camera (its number or device) or an address; iterating connects.

    Raises:
        SourceError: when made: PyAV is missing.
    """

    address: str
    rate: float | None = None
    live: bool = True

    def __post_init__(self) -> None:
        pyav()

    def __iter__(self) -> Iterator[Captured]:
        address, form = self.address, None
        options = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
        if "://" not in address:
            form = _CAMERAS.get(sys.platform)
            if address.isdecimal() and sys.platform.startswith("linux"):
                address = f"/dev/video{address}"
        with _opened(address, format=form, timeout=TIMEOUT, options=options) as stream:
            yield from _decoded(stream, address)


def _opened(address: str, **options: Any) -> Any:
    av = pyav()
    try:
        container = av.open(address, **options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{address}: cannot be opened ({_said(error)})") from error
    if not container.streams.video:
        container.close()
        raise SourceError(f"{address}: holds no video")
    return container


def _decoded(container: Any, address: str) -> Iterator[Captured]:
    """Frames of an open container, none of them held back by threads."""
    av = pyav()
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"
    rate = float(stream.average_rate or RATE)
    av.logging.set_level(av.logging.WARNING)
    index = 0
    with av.logging.Capture(local=False) as spoken:
        try:
            for frame in container.decode(stream):
                damage = spoken[0][2].strip() if spoken else ""
                spoken.clear()
                image = frame.to_ndarray(format="rgb24")
                spoken.clear()  # the converter's remarks on colour are no damage
                seconds = index / rate if frame.time is None else float(frame.time)
                yield Captured(image, seconds, f"{index:06}", damage)
                index += 1
        except av.FFmpegError as error:
            raise SourceError(
                f"{address}: cannot be read after frame {index} ({_said(error)})"
            ) from error


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class VideoWriter:
    """An MP4 in fragments of a second: what is written can be played, whatever comes.

    The size is that of the first frame, made even by repeating its last row or column.

    Args:
        path: of the file.
        rate: frames a second.

    Raises:
        SourceError: PyAV is missing.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        self._av = pyav()
        self._container = self._av.open(
            os.fspath(path),
            "w",
            format="mp4",
            options={
                "movflags": "frag_keyframe+empty_moov+default_base_moof",
                "flush_packets": "1",
            },
        )
        self._rate = Fraction(rate).limit_denominator(1001)
        self._stream: Any = None
        self._ticks = -1

    def add(self, image: np.ndarray, seconds: float) -> None:
        """Appends a frame, uint8 [H, W, 3], RGB, to be shown at `seconds`."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._started(*image.shape[:2])
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        self._ticks = max(self._ticks + 1, round(seconds / _TICK))
        frame.pts, frame.time_base = self._ticks, _TICK
        self._container.mux(self._stream.encode(frame))

    def _started(self, height: int, width: int) -> Any:
        codecs = self._av.codecs_available
        codec = "libx264" if "libx264" in codecs else "mpeg4"
        options = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}
        stream = self._container.add_stream(
            codec, rate=self._rate, options=options if codec == "libx264" else {}
        )
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = _TICK
        stream.codec_context.gop_size = math.ceil(self._rate)
        return stream

    def close(self) -> None:
        """Writes what is left."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
