"""Opens video containers and reads their frames."""

import re
import time
from collections.abc import Iterator
from typing import Any

from data_pipelines.io.environment import install_command
from data_pipelines.io.images import size_fault
from dmnet_jax.video.clock import Clock
from dmnet_jax.video.decoding import Decoder, Display
from dmnet_jax.video.sources import RATE, Captured, SourceError

TIMEOUT = (10.0, 5.0)
"""Seconds to wait for a stream to open, and for its next packet."""

_SHORT = 0.5  # tolerated difference in seconds to the declared duration
_RETRIES = 16  # tolerated number of unreadable packets in a row


def pyav() -> Any:
    """Imports and returns the module `av`.

    Raises:
        SourceError: PyAV is not installed.
    """
    try:
        import av
        import av.codec.context
        import av.logging
    except ImportError as error:
        raise SourceError(
            f"video needs PyAV: {install_command('video')} ({error})"
        ) from error
    return av


def no_faults() -> dict[str, int]:
    """Returns the initial fault counts of a source."""
    return {"undecodable": 0, "clock_jumps": 0}


def opened(url: str, name: str, **options: Any) -> Any:
    """Opens a container and checks that it has a readable video stream.

    Args:
        url: URL for FFmpeg.
        name: name for error messages.
        **options: arguments of `av.open`.

    Raises:
        SourceError: the container cannot be opened or has no readable video.
    """
    av = pyav()
    try:
        container = av.open(url, **options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{name}: cannot be opened ({error_text(error)})") from error
    try:
        stream = stream_of(container)
        if stream is None:
            raise SourceError(f"{name}: contains no video")
        codec = stream.codec_context
        if codec is None:
            raise SourceError(f"{name}: there is no decoder for its video")
        # Some codecs know their size only after the first frame.
        fault = codec.width and size_fault(codec.height, codec.width)
        if fault:
            raise SourceError(f"{name}: {fault}")
    except BaseException:
        container.close()
        raise
    return container


def stream_of(container: Any) -> Any:
    """Returns the first video stream, preferring those that are not cover art."""
    videos = container.streams.video
    moving = [video for video in videos if not video.disposition & _cover()]
    return next(iter([*moving, *videos]), None)


def _cover() -> Any:
    from av.stream import Disposition

    return Disposition.attached_pic


def rate_of(stream: Any) -> float | None:
    """Returns frames per second; None if the declared rate is implausible."""
    rate = float(stream.guessed_rate or stream.average_rate or 0)
    return rate if 0.1 <= rate <= 1000 else None


def decoded(
    container: Any, name: str, faults: dict[str, int], live: bool = False
) -> Iterator[Captured]:
    """Yields the frames of an open container, without threading delay.

    Args:
        container: container from `opened` that has not been read yet.
        name: name for error messages.
        faults: fault counts, updated in place.
        live: whether the source has no end. It is given up if nothing can be decoded.

    Raises:
        SourceError: the container cannot be read further or is truncated.
    """
    with Decoder(pyav(), stream_of(container)) as decoder:
        yield from _frames(decoder, container, name, faults, live)


def _frames(
    decoder: Decoder, container: Any, name: str, faults: dict[str, int], live: bool
) -> Iterator[Captured]:
    av, stream = pyav(), stream_of(container)
    rate = rate_of(stream) or RATE
    display, clock = Display(), Clock(1 / rate)
    before = dict(faults)
    index, seconds, heard = 0, 0.0, time.monotonic()
    failed: Exception | None = None
    for packet in _packets(av, container, stream):
        if isinstance(packet, Exception):
            # Flush the decoder first, then raise the error.
            failed, packet = packet, av.Packet()
            packet.time_base = stream.time_base
        for frame, damage in decoder.frames(packet):
            fault = size_fault(frame.height, frame.width)
            if fault:
                raise SourceError(f"{name}: frame {index}: {fault}")
            image = display.upright(frame, frame.to_ndarray(format="rgb24"))
            seconds = index / rate if frame.time is None else float(frame.time)
            shown = clock.read(seconds)
            faults["clock_jumps"] = before["clock_jumps"] + clock.jumps
            yield Captured(image, shown, f"{index:06}", damage)
            index, heard = index + 1, time.monotonic()
        faults["undecodable"] = before["undecodable"] + decoder.refused
        if live and time.monotonic() - heard > sum(TIMEOUT):
            raise SourceError(f"{name}: nothing can be decoded ({decoder.reason})")
    if failed is not None:
        raise SourceError(
            f"{name}: cannot be read after frame {index} ({error_text(failed)})"
        ) from failed
    if not index and decoder.refused:
        raise SourceError(f"{name}: no frame can be decoded ({decoder.reason})")
    end = None if live or clock.jumps or not index else _end(container, stream)
    if end is not None and seconds + 1 / rate < end - _SHORT:
        raise SourceError(
            f"{name}: ends after frame {index}, at {seconds:.1f} s of {end:.1f} s; "
            "it is truncated"
        )


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Yields packets, the last one empty, or an error if reading fails."""
    failures = 0
    while True:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
            return
        except (av.InvalidDataError, IndexError) as error:
            # PyAV fails on streams that appear in the middle of damaged data.
            failures += 1
            if failures > _RETRIES:
                yield error
                return
        except av.FFmpegError as error:
            yield error
            return


def _end(container: Any, stream: Any) -> float | None:
    """Returns the declared end of the last frame in seconds; None if not declared."""
    start = float((stream.start_time or 0) * stream.time_base)
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # The duration is estimated from the file size, but the frame count is exact.
        return start + float(stream.frames / stream.average_rate)
    if stream.duration is not None:
        return start + float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return start + container.duration / 1e6
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return None
    hours, minutes, seconds = map(float, tag.groups())  # Matroska with audio
    return start + 3600 * hours + 60 * minutes + seconds


def error_text(error: Exception) -> str:
    """Returns the message of a library's error."""
    return getattr(error, "strerror", None) or str(error)
