"""Selects key frames of a street video: views that differ from all earlier ones.

    python examples/key_frames.py [IMAGE_FOLDER]

Without a folder, it draws a street along which a camera drives, waits, and drives back.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dmnet_jax import memory

CAPACITY = 8


def draw_street(frames: int = 90, height: int = 48, width: int = 64) -> np.ndarray:
    """Draws frames uint8 [T, H, W, 3]: a third each driving, waiting and returning."""
    rng = np.random.default_rng(0)
    street = np.full((height, 6 * width, 3), (150, 190, 230), np.uint8)
    for left in range(0, 6 * width, 24):  # houses of different heights and colors
        roof = rng.integers(4, height // 2)
        street[roof:, left : left + 24] = rng.integers(40, 220, 3)
    street[-10:] = 90  # the road
    outbound = np.linspace(0, 5 * width, frames // 3).astype(int)
    positions = [*outbound, *[outbound[-1]] * (frames // 3), *outbound[::-1]]
    return np.stack([street[:, x : x + width] for x in positions])


def read_images(folder: str) -> np.ndarray:
    """Reads the images of a folder at the size of the first one, uint8 [T, H, W, 3]."""
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix in (".png", ".jpg"))
    if not paths:
        raise SystemExit(f"{folder}: contains no .png or .jpg files")
    images = [Image.open(path).convert("RGB") for path in paths]
    return np.stack([np.asarray(image.resize(images[0].size)) for image in images])


def describe(frame: jax.Array) -> jax.Array:
    """Returns the descriptor of a frame: a 6x8 thumbnail, float32 [6, 8, 3] in 0..1."""
    return jax.image.resize(frame.astype(jnp.float32) / 255, (6, 8, 3), "linear")


@jax.jit
def key_frames(frames: jax.Array) -> jax.Array:
    """Returns the indices of the key frames, int32 [CAPACITY]; `EMPTY` if unused."""
    # Similarity is the negative distance; 2.4 is a change of 0.2 in all 144 values.
    policy = memory.novel(-2.4)

    def step(ring, frame_and_index):
        frame, index = frame_and_index
        candidate = memory.Candidate(
            describe(frame), confidence=jnp.float32(0), frame=index
        )
        return memory.admit(ring, candidate, policy=policy)

    ring = memory.init(describe(frames[0]), capacity=CAPACITY)
    ring, _ = jax.lax.scan(step, ring, (frames, jnp.arange(len(frames))))
    return ring.stamp


def main(folder: str = "") -> list[int]:
    frames = read_images(folder) if folder else draw_street()
    stamps = key_frames(jnp.asarray(frames))
    indices = sorted(int(stamp) for stamp in stamps if stamp != memory.EMPTY)
    print(f"{len(frames)} frames, key frames: {indices}")
    return indices


if __name__ == "__main__":
    main(*sys.argv[1:2])
