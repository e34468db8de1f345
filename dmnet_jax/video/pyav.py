"""Video in and out by PyAV (the extra "video"); nothing else needs it.

A damaged video does not fail: what is damaged in it is marked, see `decoding`, what
gives no frame is left out and counted, and where the file ends too early that is an
error after its last frame.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.files import WriteError
from dmnet_jax.video.containers import (
    TIMEOUT,
    decoded,
    no_faults,
    opened,
    pyav,
    rate_of,
    said,
    stream_of,
)
from dmnet_jax.video.sources import RATE, Captured

_TICK = Fraction(1, 1000)
_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_RECORDED = ("http", "https", "ftp", "sftp", "file")  # schemes that may be either


@dataclass(frozen=True)
class VideoFile:
    """A video file, every frame, as it is to be shown: turned by its display matrix.

    Attributes:
        path: of the file.
        faults: of the newest iteration so far: packets that gave no frame, and jumps
            of the clock that were bridged.

    Raises:
        SourceError: when made: PyAV is missing, or the file holds no video. When
            iterated: the file cannot be read on, or ends before its end.
    """

    path: Path
    live: bool = False
    faults: dict[str, int] = field(default_factory=no_faults, compare=False)

    def __post_init__(self) -> None:
        with self._opened():
            pass

    @property
    def rate(self) -> float | None:
        with self._opened() as container:
            return rate_of(stream_of(container))

    @property
    def length(self) -> int | None:
        """About how many frames there are; None if the file does not tell."""
        with self._opened() as container:
            stream = stream_of(container)
            if stream.frames or stream.duration is None:
                return stream.frames or None
            seconds = float(stream.duration * stream.time_base)
            return round(seconds * (rate_of(stream) or RATE))

    def __iter__(self) -> Iterator[Captured]:
        self.faults.update(no_faults())
        with self._opened() as container:
            yield from decoded(container, str(self.path), self.faults)

    def _opened(self) -> Any:
        # With its scheme, or a name such as 10:30.mp4 is read as an address.
        return opened(f"file:{self.path}", str(self.path))


@dataclass
class Camera:
    """A camera (its number or device) or an address; iterating connects.

    Attributes:
        address: as the user gives it.
        live: whether frames are lost when nobody looks. What a web server sends is if
            it says neither its length nor its duration, which is known once it is open.
        faults: of `VideoFile`, of all iterations.

    Raises:
        SourceError: when made: PyAV is missing. When iterated: as `VideoFile`, and if
            nothing can be decoded for some seconds.
    """

    address: str
    rate: float | None = None
    live: bool = field(init=False)
    faults: dict[str, int] = field(default_factory=no_faults, compare=False)

    def __post_init__(self) -> None:
        pyav()
        scheme = self.address.partition("://")[0].lower()
        self.live = "://" not in self.address or scheme not in _RECORDED

    def __iter__(self) -> Iterator[Captured]:
        address, form = self.address, None
        options = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
        if "://" not in address:
            form = _CAMERAS.get(sys.platform)
            if address.isdecimal() and sys.platform.startswith("linux"):
                address = f"/dev/video{address}"
        with opened(
            address, address, format=form, timeout=TIMEOUT, options=options
        ) as stream:
            if address.partition("://")[0].lower() in _RECORDED:
                listed = stream.format.name in ("hls", "dash")  # and so has a length
                self.live = stream.duration is None and (listed or stream.size <= 0)
            yield from decoded(stream, address, self.faults, live=self.live)


class VideoWriter:
    """An MP4 in fragments of a second: what is written can be played, whatever comes.

    The size is that of the first frame, made even by repeating its last row or column.

    Args:
        path: of the file.
        rate: frames a second.

    Raises:
        SourceError: PyAV is missing.
        WriteError: also by the methods: the file cannot be written, or the encoder
            refuses such frames.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        self._av, self._path = pyav(), os.fspath(path)
        with self._told():
            self._container = self._av.open(
                f"file:{self._path}",
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
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        self._ticks = max(self._ticks + 1, round(seconds / _TICK))
        frame.pts, frame.time_base = self._ticks, _TICK
        with self._told():
            if self._stream is None:
                self._stream = self._started(*image.shape[:2])
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
        with self._told():
            try:
                if self._stream is not None and self._stream.codec_context.is_open:
                    self._container.mux(self._stream.encode())
            finally:
                self._container.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise WriteError(
                f"{self._path}: cannot be written ({said(error)})"
            ) from error

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
