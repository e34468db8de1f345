"""Open containers: what is in them, and their frames one after another."""

import re
import time
from collections.abc import Iterator
from typing import Any

from data_pipelines.io.environment import install
from data_pipelines.io.images import size_fault
from dmnet_jax.video.clock import Clock
from dmnet_jax.video.decoding import Decoder, Display
from dmnet_jax.video.sources import RATE, Captured, SourceError

TIMEOUT = (10.0, 5.0)
"""Seconds to wait for a stream to open, and for its next packet."""

_SHORT = 0.5  # seconds that a file may lack of the duration it declares
_RETRIES = 16  # packets in a row that may not be readable


def pyav() -> Any:
    """The module `av`.

    Raises:
        SourceError: it is not installed.
    """
    try:
        import av
        import av.codec.context
        import av.logging
    except ImportError as error:
        raise SourceError(f"video needs PyAV: {install('video')} ({error})") from error
    return av


def no_faults() -> dict[str, int]:
    """What a source counts of its own, at its start."""
    return {"undecodable": 0, "clock_jumps": 0}


def opened(url: str, name: str, **options: Any) -> Any:
    """A container that holds a video of a size that can be read.

    Args:
        url: as FFmpeg takes it.
        name: for errors.
        options: of `av.open`.

    Raises:
        SourceError: there is no such thing.
    """
    av = pyav()
    try:
        container = av.open(url, **options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{name}: cannot be opened ({said(error)})") from error
    try:
        stream = stream_of(container)
        if stream is None:
            raise SourceError(f"{name}: holds no video")
        codec = stream.codec_context
        if codec is None:
            raise SourceError(f"{name}: there is no decoder for its video")
        # Some say their size only with the first frame.
        fault = codec.width and size_fault(codec.height, codec.width)
        if fault:
            raise SourceError(f"{name}: {fault}")
    except BaseException:
        container.close()
        raise
    return container


def stream_of(container: Any) -> Any:
    """The first video that is no cover picture, or None."""
    videos = container.streams.video
    moving = [video for video in videos if not video.disposition & _cover()]
    return next(iter([*moving, *videos]), None)


def _cover() -> Any:
    from av.stream import Disposition

    return Disposition.attached_pic


def rate_of(stream: Any) -> float | None:
    """Frames a second; None if what the stream says of it cannot be."""
    rate = float(stream.guessed_rate or stream.average_rate or 0)
    return rate if 0.1 <= rate <= 1000 else None


def decoded(
    container: Any, name: str, faults: dict[str, int], live: bool = False
) -> Iterator[Captured]:
    """Frames of an open container, none of them held back by threads.

    Args:
        container: of `opened`, nothing read of it yet.
        name: for errors.
        faults: counted up.
        live: whether it has no end, and is given up if nothing can be decoded.

    Raises:
        SourceError: it cannot be read on, or ends before its end.
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
            # What the decoder holds back still comes, then the error.
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
            f"{name}: cannot be read after frame {index} ({said(failed)})"
        ) from failed
    if not index and decoder.refused:
        raise SourceError(f"{name}: no frame can be decoded ({decoder.reason})")
    end = None if live or clock.jumps or not index else _end(container, stream)
    if end is not None and seconds + 1 / rate < end - _SHORT:
        raise SourceError(
            f"{name}: ends after frame {index}, at {seconds:.1f} s of {end:.1f} s; "
            "it was cut short"
        )


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Packets, the last one empty; or an error, where they cannot be read on."""
    failures = 0
    while True:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
            return
        except (av.InvalidDataError, IndexError) as error:
            # PyAV stumbles over streams that turn up in the middle of damage.
            failures += 1
            if failures > _RETRIES:
                yield error
                return
        except av.FFmpegError as error:
            yield error
            return


def _end(container: Any, stream: Any) -> float | None:
    """When the last frame ends, in seconds, as the file says; None if it does not."""
    start = float((stream.start_time or 0) * stream.time_base)
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # Its duration is guessed from the file's length, its frames are counted.
        return start + float(stream.frames / stream.average_rate)
    if stream.duration is not None:
        return start + float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return start + container.duration / 1e6
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return None
    hours, minutes, seconds = map(float, tag.groups())  # Matroska's, beside sound
    return start + 3600 * hours + 60 * minutes + seconds


def said(error: Exception) -> str:
    """What a library says went wrong, in words."""
    return getattr(error, "strerror", None) or str(error)
