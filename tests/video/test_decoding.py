"""Which frames of damaged, unusual and truncated videos are marked."""

import gc
import random
import shutil
import threading

import numpy as np
import pytest

from dmnet_jax.video.sources import SourceError
from tests.support.clips import damage_packet, remux, write_video

av = pytest.importorskip("av", reason="needs PyAV: the extra video")
from dmnet_jax.video.decoding import Display  # noqa: E402
from dmnet_jax.video.pyav import VideoFile  # noqa: E402

KINDS = {
    "h264": ("libx264", "mp4", {}),
    "h264-ts": ("libx264", "ts", {}),
    "mpeg2": ("mpeg2video", "mkv", {"max_b_frames": 0}),
    "mpeg2-b": ("mpeg2video", "mkv", {"max_b_frames": 2}),
    "mpeg4": ("mpeg4", "mp4", {"max_b_frames": 1}),
    "hevc": ("libx265", "mp4", {}),
    "mjpeg": ("mjpeg", "avi", {}),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    cache = {}

    def clip(kind):
        if kind not in cache:
            codec, suffix, settings = KINDS[kind]
            if codec not in av.codecs_available:
                pytest.skip(f"PyAV has no {codec}")
            cache[kind] = write_video(folder / f"{kind}.{suffix}", codec, **settings)
        return cache[kind]

    return clip


def times(path):
    """The times of the frames of a video, in packet order."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        return [round(float(p.pts * p.time_base), 3) for p in packets]


def read(path):
    """Image and damage of each frame, by time."""
    frames = list(VideoFile(path))
    return {round(f.seconds, 3): (f.image, f.damage) for f in frames}


def marked(decoded):
    return {time for time, (_, damage) in decoded.items() if damage}


def torn(decoded, clean):
    return {t for t, (x, _) in decoded.items() if not np.array_equal(x, clean[t][0])}


@pytest.mark.parametrize("kind", ["h264", "mpeg2", "mpeg2-b", "mpeg4"])
def test_frame_of_each_damaged_packet_is_marked(kind, clips, tmp_path):
    clean, missed = read(clips(kind)), []
    assert not marked(clean)
    for number, time in enumerate(times(clips(kind))):
        bad = tmp_path / f"bad{clips(kind).suffix}"
        first = 0.3 if number else 0.5  # the first packet begins with headers
        remux(clips(kind), bad, damage_packet(number, first))
        decoded = read(bad)
        assert set(decoded) == set(clean), number
        assert marked(decoded) <= torn(decoded, clean), (
            "an undamaged frame must not be marked"
        )
        if time in torn(decoded, clean) - marked(decoded):
            missed.append(number)
    # A few damaged bytes at the end of a packet may decode to another valid image.
    assert len(missed) <= (2 if kind == "h264" else 0)


@pytest.mark.parametrize("kind", ["h264", "mjpeg"])
def test_nothing_else_is_marked(kind, clips, tmp_path):
    for number, time in enumerate(times(clips(kind))):
        bad = remux(
            clips(kind), tmp_path / f"bad.{KINDS[kind][1]}", damage_packet(number)
        )
        assert marked(read(bad)) <= {time}


def test_hevc_marks_what_its_decoder_only_logs(clips, tmp_path):
    clean, right = read(clips("hevc")), 0
    for number, time in enumerate(times(clips("hevc"))):
        bad = remux(clips("hevc"), tmp_path / "bad.mp4", damage_packet(number, 0.3))
        decoded = read(bad)
        assert marked(decoded) <= torn(decoded, clean)
        right += time in marked(decoded) or time not in decoded
    # Its entropy decoder accepts many damaged bytes as valid.
    assert right >= len(clean) / 3
    assert av.logging.get_level() is None and av.logging.get_skip_repeated()


def test_ffv1_marks_slices_whose_checksum_is_wrong(tmp_path):
    whole = write_video(tmp_path / "a.mkv", "ffv1", 4, options={"level": "3"})

    def inside(index, content):
        half = len(content) // 2
        middle = bytes(20) if index == 2 else content[half : half + 20]
        return content[:half] + middle + content[half + 20 :]

    bad = remux(whole, tmp_path / "bad.mkv", inside)
    assert [bool(frame.damage) for frame in VideoFile(bad)] == [0, 0, 1, 0]


def test_frames_that_miss_a_reference_are_marked(clips, tmp_path):
    clean = read(clips("hevc"))
    path = remux(
        clips("hevc"),
        tmp_path / "missing.mp4",
        lambda index, content: None if index == 1 else content,
    )
    decoded = read(path)
    assert len(decoded) == len(clean) - 1 and marked(decoded)
    assert marked(decoded) == torn(decoded, clean)


def segment(marker, length, body=b""):
    return b"\xff" + bytes([marker]) + length.to_bytes(2, "big") + body


def unit(body):
    return len(body).to_bytes(4, "big") + body


HARMLESS = {
    "no end": ("mjpeg", lambda x: x[:-2]),
    "padding": ("mjpeg", lambda x: x + bytes(300)),
    "APP0 too long": (
        "mjpeg",
        lambda x: x[:2] + segment(0xE0, 60_000, b"AVI1") + x[2:],
    ),
    "APP4 of none": ("mjpeg", lambda x: x[:2] + segment(0xE4, 0) + x[2:]),
    "APP1 of one": ("mjpeg", lambda x: x[:2] + segment(0xE1, 1) + x[2:]),
    "APP5, vendor's": ("mjpeg", lambda x: x[:2] + segment(0xE5, 5, b"abc") + x[2:]),
    "broken EXIF": (
        "mjpeg",
        lambda x: x[:2] + segment(0xE1, 16, b"Exif\0\0II*\0\xff\xff\xff\xff") + x[2:],
    ),
    "short SEI": ("h264", lambda x: unit(b"\x06\x05\x30abc\x80") + x),
    "short timing": ("h264", lambda x: unit(b"\x06\x01\x05\x00\x80") + x),
    "short SEI of HEVC": ("hevc", lambda x: unit(b"\x4e\x01\x05\x30abc\x80") + x),
}


@pytest.mark.parametrize("remark", HARMLESS)
def test_decoder_remarks_do_not_mark_frames(remark, clips, tmp_path):
    kind, change = HARMLESS[remark]
    clean = read(clips(kind))
    path = tmp_path / f"odd.{KINDS[kind][1]}"
    decoded = read(remux(clips(kind), path, lambda _, x: change(x)))
    assert (
        set(decoded) == set(clean) and not marked(decoded) and not torn(decoded, clean)
    )


@pytest.mark.parametrize("kind", ["h264", "hevc"])
def test_rejected_packet_is_skipped_and_counted(kind, clips, tmp_path):
    path = tmp_path / f"cut.{KINDS[kind][1]}"
    remux(clips(kind), path, lambda index, x: x[: len(x) // 2] if index == 5 else x)
    source = VideoFile(path)
    assert len(list(source)) == len(times(clips(kind))) - 1
    assert source.faults == {"undecodable": 1, "clock_jumps": 0}
    assert len(list(source)) and source.faults["undecodable"] == 1, (
        "counts must start again with each reading"
    )


def test_decoder_logs_of_parallel_videos_are_separate(clips, tmp_path):
    noisy = remux(
        clips("mjpeg"),
        tmp_path / "noisy.avi",
        lambda _, x: x[:2] + segment(0xE4, 0) + x[2:],
    )
    bad = remux(clips("hevc"), tmp_path / "bad.mp4", damage_packet(3, 0.3))
    expected = {path: marked(read(path)) for path in (noisy, bad, clips("h264"))}
    decoded = []
    threads = [
        threading.Thread(target=lambda p=path: decoded.append((p, marked(read(p)))))
        for path in [*expected] * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 9 and all(damaged == expected[p] for p, damaged in decoded)
    assert not expected[noisy] and not expected[clips("h264")]


@pytest.mark.parametrize("kind", ["mpeg2", "mjpeg"])
def test_truncated_video_is_reported(kind, tmp_path):
    codec, suffix, settings = KINDS[kind]
    # A truncated MP4 is refused on opening, because its index is at the end.
    whole = write_video(tmp_path / f"whole.{suffix}", codec, 60, **settings)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = []
    with pytest.raises(SourceError, match=f"cut.{suffix}: .* after frame"):
        for frame in VideoFile(cut):
            frames.append(frame)
    assert 10 < len(frames) < 50
    assert len(list(VideoFile(whole))) == 60


@pytest.mark.parametrize("parts", [(0, 10_000), (10_000, 0), (0, 95_000), (3, 0)])
def test_a_clock_that_jumps_is_bridged(parts, clips, tmp_path):
    path = tmp_path / "two.ts"
    with path.open("wb") as file:
        for number, later in enumerate(parts):
            part = remux(clips("h264-ts"), tmp_path / f"{number}.ts", later=later)
            file.write(part.read_bytes())
    source = VideoFile(path)
    seconds = [frame.seconds for frame in source]
    assert len(seconds) == 32 and source.faults["clock_jumps"] == 1
    assert np.diff(seconds) == pytest.approx(0.04, abs=1e-3)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"degrees": 90}, lambda x: np.rot90(x, 1)),
        ({"degrees": 180}, lambda x: np.rot90(x, 2)),
        ({"degrees": 270}, lambda x: np.rot90(x, 3)),
        ({"degrees": 0, "hflip": True}, lambda x: x[:, ::-1]),
        ({"degrees": 90, "hflip": True}, lambda x: x.transpose(1, 0, 2)[::-1, ::-1]),
    ],
)
def test_frames_are_rotated_for_display(turn, expected, clips, tmp_path):
    path = remux(clips("h264"), tmp_path / "turned.mp4", turn=turn)
    stored = next(iter(VideoFile(clips("h264")))).image
    displayed = next(iter(VideoFile(path))).image
    np.testing.assert_array_equal(displayed, expected(stored))


@pytest.mark.parametrize("rotation", [0, 90, -90, -180, 45])
def test_rotation_beside_side_data_unknown_to_pyav(rotation):
    class Frame:
        def __init__(self):
            self.rotation = rotation

        @property
        def side_data(self):
            raise ValueError("55 is not a valid Type")

    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    expected = image if rotation == 45 else np.rot90(image, rotation // 90)
    np.testing.assert_array_equal(Display().upright(Frame(), image), expected)


@pytest.mark.parametrize("kind", ["h264", "hevc", "mjpeg"])
def test_frames_are_freed_as_they_are_read(kind, clips):
    """Frames do not wait for the garbage collector, hundreds of frames later."""

    def count_alive():
        return sum(type(x).__name__ == "VideoFrame" for x in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = count_alive()
        for _ in VideoFile(clips(kind)):
            pass
        assert count_alive() - before <= 2
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("codec", "name", "settings"),
    [
        ("libx264", "a.mp4", {"options": {"x264-params": "interlaced=1"}}),
        ("libx264", "a.mkv", {"options": {"x264-params": "slices=4:open-gop=1"}}),
        ("libx264", "a.mp4", {"pix_fmt": "yuv422p10le"}),
        ("libx264", "a.mp4", {"pix_fmt": "gray"}),
        ("libx265", "a.mp4", {"pix_fmt": "yuv420p10le"}),
        ("libvpx-vp9", "a.webm", {}),
        ("ffv1", "a.mkv", {}),
        ("huffyuv", "a.avi", {"pix_fmt": "yuv422p"}),
    ],
)
def test_intact_videos_of_other_codecs_equal_ffmpeg(codec, name, settings, tmp_path):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    path = write_video(tmp_path / name, codec, 8, **settings)
    with av.open(str(path)) as container:
        expected = [x.to_ndarray(format="rgb24") for x in container.decode(video=0)]
    decoded = list(VideoFile(path))
    assert not any(frame.damage for frame in decoded)
    np.testing.assert_array_equal([frame.image for frame in decoded], expected)


def test_names_that_look_like_addresses(clips, tmp_path, monkeypatch):
    from dmnet_jax.video.sources import open_source

    monkeypatch.chdir(tmp_path)
    for name in ("2026-11-25T10:30:05.mp4", "concat:a.mp4", "5%d.mp4"):
        shutil.copy(clips("h264"), name)
        assert len(list(open_source(name))) == 16


def test_video_of_extreme_aspect_is_refused_before_decoding(tmp_path):
    path = write_video(tmp_path / "strip.mp4", "mpeg4", 1, size=(16, 512))
    with pytest.raises(SourceError, match="strip.mp4: 512x16 .*longer side"):
        VideoFile(path)


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_is_marked_or_raises_one_error(kind, clips, tmp_path):
    """Bytes are changed, removed or inserted anywhere in the file."""
    rng, whole = random.Random(0), clips(kind).read_bytes()
    path = tmp_path / f"bad{clips(kind).suffix}"
    for _ in range(12):
        content, place = bytearray(whole), rng.randrange(len(whole))
        length = rng.randrange(1, 400)
        content[place : place + rng.choice([0, length])] = rng.randbytes(
            rng.choice([0, length])
        )
        path.write_bytes(content[: rng.choice([len(content), place + 1])])
        try:
            for frame in VideoFile(path):
                assert frame.image.dtype == np.uint8 and frame.image.ndim == 3
        except SourceError as error:
            assert str(path) in str(error) and "\n" not in str(error)
