"""Animates the effect of the memory on corrupted frames.

    python examples/memory_at_work.py [OUT.gif] [KIND]

A rendered scene is corrupted for a second by smoke, blood, low_light, glare or another
of `data_pipelines.corruption.KINDS`. Left: predictions from single frames. Right: with
the prediction state. For research use; not a medical device.
"""

import sys
from collections.abc import Iterator

import jax
import numpy as np
from PIL import Image

from data_pipelines.corruption import corrupt
from data_pipelines.frames import resize_label
from data_pipelines.synthetic.render import render_frame
from data_pipelines.synthetic.variety import make_varied_scene
from dmnet_jax.streaming import PRETRAINED, load_run
from dmnet_jax.video.overlay import overlay

SCENE, RATE, FIRST_FRAME = 1, 12.5, 40


def corrupted_frames(
    kind: str, size: tuple[int, int], count: int
) -> Iterator[np.ndarray]:
    """Yields frames uint8 [H, W, 3]; the middle third of them is corrupted."""
    scene = make_varied_scene(0, SCENE, size, RATE)
    start, stop = count // 3, 2 * count // 3
    for index in range(count):
        frame = render_frame(scene, FIRST_FRAME + index).rgb
        if start <= index < stop:
            frame = corrupt(frame, kind, 4, seed=1, step=index - start, before=frame)
        yield frame


def main(
    out: str = "memory_at_work.gif",
    kind: str = "glare",
    *,
    size: tuple[int, int] = (192, 256),
    frames: int = 36,
) -> list[np.ndarray]:
    """Writes the animation and returns its frames, uint8 [H, 2 W, 3]."""
    trained = load_run(PRETRAINED)
    model = trained.model

    @jax.jit
    def step(memory, frame):
        return model.apply(trained.variables, memory, frame[None], method="step")

    empty = model.init_memory(1, size, jax.random.key(0))
    memory, views = empty, []
    for frame in corrupted_frames(kind, size, frames):
        _, single = step(empty, frame)
        memory, with_memory = step(memory, frame)
        sides = [
            overlay(frame, resize_label(np.asarray(label, np.uint8), size))
            for label in (
                single.logits[0].argmax(-1),
                with_memory.logits[0].argmax(-1),
            )
        ]
        views.append(np.concatenate(sides, axis=1))
    images = [Image.fromarray(view) for view in views]
    images[0].save(
        out, save_all=True, append_images=images[1:], duration=80, loop=0, optimize=True
    )
    print(f"{out}: {len(views)} frames of {kind}, single frame | with memory")
    return views


if __name__ == "__main__":
    main(*sys.argv[1:3])
