"""Animates what the memory gains on disturbed frames, beside the network without it.

    python examples/memory_at_work.py [OUT.webp] [KIND...]

A rendered scene is disturbed three times: by glare, black frames and low light, or by
the kinds of `data_pipelines.corruption.KINDS` that are given. Left, each frame alone;
right, with the memories of the shipped network. For research use; not a medical
device.
"""

import sys
from collections.abc import Iterator
from itertools import islice

import jax
import numpy as np
from PIL import Image

from data_pipelines.corruption import corrupt
from data_pipelines.io.images import resize_label
from data_pipelines.synthetic import endless
from dmnet_jax.streaming import PRETRAINED, load_run
from dmnet_jax.video.overlay import overlay

SEVERITY = 3


def disturbed(
    kinds: tuple[str, ...], size: tuple[int, int], first: int, length: int
) -> Iterator[np.ndarray]:
    """Yields frames, uint8 [H, W, 3]: `length` clean ones and as many of each kind."""
    video = islice(endless(0, size, 25.0), first, None)
    for seed, kind in enumerate(kinds):
        before = None
        for before in islice(video, length):
            yield before
        for step, frame in enumerate(islice(video, length)):
            yield corrupt(frame, kind, SEVERITY, seed=seed, step=step, before=before)
    yield from islice(video, length)


def main(
    out: str = "memory_at_work.webp",
    *kinds: str,
    size: tuple[int, int] = (256, 320),
    first: int = 90,
    length: int = 10,
) -> list[np.ndarray]:
    """Writes the animation and returns its pictures, uint8 [H, 2 W, 3]."""
    kinds = kinds or ("glare", "black", "low_light")
    model, variables, _, _ = load_run(PRETRAINED)

    @jax.jit
    def step(memory, frame):
        return model.apply(variables, memory, frame[None], method="step")

    empty = model.init_memory(1, size, jax.random.key(0))
    memory, pictures = empty, []
    for frame in disturbed(kinds, size, first, length):
        _, alone = step(empty, frame)
        memory, remembered = step(memory, frame)
        labels = [
            np.asarray(output.logits[0].argmax(-1), np.uint8)
            for output in (alone, remembered)
        ]
        sides = [overlay(frame, resize_label(label, size)) for label in labels]
        pictures.append(np.concatenate(sides, axis=1))
    first_picture, *others = map(Image.fromarray, pictures)
    first_picture.save(
        out, save_all=True, append_images=others, duration=80, loop=0, quality=60
    )
    print(f"{out}: {len(pictures)} frames; left without memory, right with memory")
    return pictures


if __name__ == "__main__":
    main(*sys.argv[1:])
