"""Chooses key frames of a street video: views that are unlike all chosen before.

    python examples/key_frames.py [FOLDER_OF_PICTURES]

Without a folder it draws a street along which a camera drives, waits, and drives back.
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
    """Frames uint8 [T, H, W, 3]: a third there, a third waiting, a third back."""
    rng = np.random.default_rng(0)
    street = np.full((height, 6 * width, 3), (150, 190, 230), np.uint8)
    for left in range(0, 6 * width, 24):  # houses of different heights and colors
        roof = rng.integers(4, height // 2)
        street[roof:, left : left + 24] = rng.integers(40, 220, 3)
    street[-10:] = 90  # the road
    there = np.linspace(0, 5 * width, frames // 3).astype(int)
    places = [*there, *[there[-1]] * (frames // 3), *there[::-1]]
    return np.stack([street[:, place : place + width] for place in places])


def read_pictures(folder: str) -> np.ndarray:
    """All pictures of a folder at the size of the first one, uint8 [T, H, W, 3]."""
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix in (".png", ".jpg"))
    if not paths:
        raise SystemExit(f"{folder}: holds no .png or .jpg files")
    pictures = [Image.open(path).convert("RGB") for path in paths]
    return np.stack([np.asarray(p.resize(pictures[0].size)) for p in pictures])


def describe(frame: jax.Array) -> jax.Array:
    """What frames are compared by: a 6x8 thumbnail, float32 [6, 8, 3] in 0..1."""
    return jax.image.resize(frame.astype(jnp.float32) / 255, (6, 8, 3), "linear")


@jax.jit
def key_frames(frames: jax.Array) -> jax.Array:
    """Indices int32 [CAPACITY] of the key frames, `memory.EMPTY` in unused slots."""
    # Similarity is minus the distance: 2.4 is a change of 0.2 in all 144 values.
    policy = memory.novel(-2.4)

    def step(ring, frame_and_index):
        frame, index = frame_and_index
        view = memory.Candidate(describe(frame), confidence=jnp.float32(0), frame=index)
        return memory.admit(ring, view, policy=policy)

    ring = memory.init(describe(frames[0]), capacity=CAPACITY)
    ring, _ = jax.lax.scan(step, ring, (frames, jnp.arange(len(frames))))
    return ring.stamp


def main(folder: str = "") -> list[int]:
    frames = read_pictures(folder) if folder else draw_street()
    stamps = key_frames(jnp.asarray(frames))
    chosen = sorted(int(stamp) for stamp in stamps if stamp != memory.EMPTY)
    print(f"{len(frames)} frames, key frames: {chosen}")
    return chosen


if __name__ == "__main__":
    main(*sys.argv[1:2])
