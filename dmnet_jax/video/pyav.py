"""Video input and output with PyAV (the extra "video").

A damaged video does not fail: damaged frames are marked (see `decoding`), and packets
without a frame are skipped and counted. A truncated file raises an error after its last
frame.
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
    error_text,
    no_faults,
    opened,
    pyav,
    rate_of,
    stream_of,
)
from dmnet_jax.video.sources import RATE, Captured, SourceError

_TICK = Fraction(1, 1000)
_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_RECORDED = ("http", "https", "ftp", "sftp", "file")  # may be live or recorded


@dataclass(frozen=True)
class VideoFile:
    """All frames of a video file, rotated and flipped by its display matrix.

    Attributes:
        path: path of the file.
        faults: counts for the latest iteration so far: packets without a frame, and
            corrected clock jumps.
        start: seconds to skip, counted from the first frame. The last frame is never
            skipped.

    Raises:
        SourceError: on construction, if PyAV is not installed or the file contains no
            video. On iteration, if the file cannot be read further or is truncated.
    """

    path: Path
    live: bool = False
    faults: dict[str, int] = field(default_factory=no_faults, compare=False)
    start: float = 0.0

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
            seconds = _seconds(container)
            if stream.frames or seconds is None:
                return stream.frames or None
            return round(seconds * (rate_of(stream) or RATE))

    @property
    def duration(self) -> float | None:
        """Seconds of the video; None if the file does not tell."""
        with self._opened() as container:
            return _seconds(container)

    def __iter__(self) -> Iterator[Captured]:
        self.faults.update(no_faults())
        with self._opened() as container:
            frames = decoded(container, str(self.path), self.faults)
            if self.start:
                frames = self._from_start(container, frames)
            yield from frames

    def _from_start(
        self, container: Any, frames: Iterator[Captured]
    ) -> Iterator[Captured]:
        """Seeks to the key frame before `start` and drops the frames up to it."""
        stream = stream_of(container)
        begin = self.start + float((stream.start_time or 0) * stream.time_base)
        try:
            container.seek(int(begin / stream.time_base), stream=stream)
        except pyav().FFmpegError as error:
            raise SourceError(
                f"{self.path}: cannot seek in it ({error_text(error)})"
            ) from error
        half = 0.5 / (rate_of(stream) or RATE)
        last = None
        for captured in frames:
            if captured.seconds >= begin - half:
                last = None
                yield captured
            else:
                last = captured
        if last is not None:  # `start` is beyond the last frame
            yield last

    def _opened(self) -> Any:
        # The scheme is explicit, since a name such as 10:30.mp4 looks like an address.
        return opened(f"file:{self.path}", str(self.path))


def _seconds(container: Any) -> float | None:
    """Returns the declared length of the video; None if there is none."""
    stream = stream_of(container)
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6


@dataclass
class Camera:
    """A camera (number or device path) or a network address. Iterating connects.

    Attributes:
        address: the address given by the user.
        live: whether frames are lost if they are not read. An HTTP source is live if it
            declares neither length nor duration, which is known only after opening it.
        faults: as in `VideoFile`, summed over all iterations.

    Raises:
        SourceError: on construction, if PyAV is not installed. On iteration, as in
            `VideoFile`, and if nothing can be decoded for several seconds.
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
                listed = stream.format.name in ("hls", "dash")  # playlists have a size
                self.live = stream.duration is None and (listed or stream.size <= 0)
            yield from decoded(stream, address, self.faults, live=self.live)


class VideoWriter:
    """Writes an MP4 in one-second fragments, so that it is playable even if aborted.

    The size is that of the first frame, made even by repeating its last row or column.

    Args:
        path: path of the file.
        rate: frames per second.

    Raises:
        SourceError: PyAV is not installed.
        WriteError: the file cannot be written, or the encoder rejects the frames. Also
            raised by the methods.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        self._av, self._path = pyav(), os.fspath(path)
        with self._as_source_error():
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
        """Appends a frame, uint8 [H, W, 3], RGB, with timestamp `seconds`."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        self._ticks = max(self._ticks + 1, round(seconds / _TICK))
        frame.pts, frame.time_base = self._ticks, _TICK
        with self._as_source_error():
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
        """Flushes the encoder and closes the file."""
        with self._as_source_error():
            try:
                if self._stream is not None and self._stream.codec_context.is_open:
                    self._container.mux(self._stream.encode())
            finally:
                self._container.close()

    @contextmanager
    def _as_source_error(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise WriteError(
                f"{self._path}: cannot be written ({error_text(error)})"
            ) from error

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
