"""Animates what the memory gains on disturbed frames, beside the single frame.

    python examples/memory_at_work.py [OUT.gif] [KIND]

A rendered scene is disturbed for a second: by smoke, blood, low_light, glare or another
of `data_pipelines.corruption.KINDS`. Left, each frame on its own; right, with the
prediction state. For research use; not a medical device.
"""

import sys
from collections.abc import Iterator

import jax
import numpy as np
from PIL import Image

from data_pipelines.corruption import corrupt
from data_pipelines.synthetic.render import render_frame
from data_pipelines.synthetic.variety import make_varied_scene
from dmnet_jax.streaming import PRETRAINED, load_run
from dmnet_jax.video.overlay import overlay

SCENE, RATE, FIRST = 1, 12.5, 40


def disturbed(kind: str, size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3] of which the middle third is disturbed."""
    scene = make_varied_scene(0, SCENE, size, RATE)
    begin, end = frames // 3, 2 * frames // 3
    for number in range(frames):
        frame = render_frame(scene, FIRST + number).rgb
        if begin <= number < end:
            frame = corrupt(frame, kind, 4, seed=1, step=number - begin, before=frame)
        yield frame


def main(
    out: str = "memory_at_work.gif",
    kind: str = "glare",
    *,
    size: tuple[int, int] = (192, 256),
    frames: int = 36,
) -> list[np.ndarray]:
    """Writes the animation and returns its pictures, uint8 [H, 2 W, 3]."""
    model, variables, _, _ = load_run(PRETRAINED)

    @jax.jit
    def step(memory, frame):
        return model.apply(variables, memory, frame[None], method="step")

    fresh = model.init_memory(1, size, jax.random.key(0))
    memory, pictures = fresh, []
    for frame in disturbed(kind, size, frames):
        _, alone = step(fresh, frame)
        memory, remembered = step(memory, frame)
        sides = [
            overlay(frame, np.asarray(enlarged(output.logits[0].argmax(-1), size)))
            for output in (alone, remembered)
        ]
        pictures.append(np.concatenate(sides, axis=1))
    images = [Image.fromarray(picture) for picture in pictures]
    images[0].save(
        out, save_all=True, append_images=images[1:], duration=80, loop=0, optimize=True
    )
    print(f"{out}: {len(pictures)} frames of {kind}, single frame | with memory")
    return pictures


def enlarged(label: jax.Array, size: tuple[int, int]) -> np.ndarray:
    """Labels at a quarter of the frame to its own size."""
    picture = Image.fromarray(np.asarray(label, np.uint8))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))


if __name__ == "__main__":
    main(*sys.argv[1:3])
