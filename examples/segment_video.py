"""Segments a video with the shipped weights and writes overlay images.

    python examples/segment_video.py [VIDEO_OR_FOLDER_OR_CAMERA] [OUT]

Without a source, it segments rendered surgery. Videos and cameras need PyAV:
`pip install -e ".[video]"`. `python -m dmnet_jax.predict` is the complete command for
this task. For research use; not a medical device.
"""

import sys
from collections import Counter
from itertools import islice
from pathlib import Path

from PIL import Image

from dmnet_jax.streaming import Session
from dmnet_jax.video.overlay import overlay
from dmnet_jax.video.sources import open_source


def main(
    source: str = "synthetic",
    out: str = "segmented",
    *,
    frames: int = 50,
    size: tuple[int, int] = (256, 320),
) -> Counter:
    """Segments the first `frames` frames at `size` (H, W), multiples of 32.

    Returns:
        The number of frames with each status. Overlays are written for "ok" frames.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    statuses: Counter = Counter()
    with Session.pretrained(size=size) as session:
        for captured in islice(open_source(source), frames):
            result = session.step(captured.image, captured.seconds, captured.damage)
            statuses[result.status] += 1
            if result.labels is not None:  # uint8 [H, W], at the size of the frame
                image = overlay(captured.image, result.labels)
                Image.fromarray(image).save(folder / f"{captured.name}.png")
        median = session.stats()["latency"]["p50_ms"]
    print(f"{dict(statuses)}, {median:.0f} ms per frame, overlays in {folder}")
    return statuses


if __name__ == "__main__":
    main(*sys.argv[1:3])
