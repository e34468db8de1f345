"""The ring buffers of `dmnet_jax.memory` as ONNX operators, for one stream.

A runtime may compute integers in float32, as OpenVINO does for division and equality:
counters are compared by order, and kept below 2**23.
"""

from typing import NamedTuple

import numpy as np

from dmnet_jax.export.onnx_builder import Graph, integers
from dmnet_jax.memory import EMPTY

_MAX_COUNT = 2**23


class Ring(NamedTuple):
    """A ring's leaves.

    Attributes:
        slots: by what follows "slots" in a leaf's name, each [1, K, h, w, C].
        stamp: int32 [1, K].
        count: int32 [1].
        capacity: K.
    """

    slots: dict[str, str]
    stamp: str
    count: str
    capacity: int


def ring_of(g: Graph, leaves: dict[str, str], name: str, size: int, reset: str) -> Ring:
    """The ring of that name and capacity among the leaves; emptied where reset [1]."""
    start = f"{name}.slots"
    return Ring(
        {
            leaf.removeprefix(start): x
            for leaf, x in leaves.items()
            if leaf.startswith(start)
        },
        g.add("Where", reset, np.int32(EMPTY), leaves[f"{name}.stamp"]),
        g.add("Where", reset, np.int32(0), leaves[f"{name}.count"]),
        size,
    )


def size(g: Graph, ring: Ring) -> str:
    """int32 [1], how many slots hold an item."""
    return g.add("Min", ring.count, np.int32(ring.capacity))


def is_empty(g: Graph, ring: Ring) -> str:
    return g.add("Less", ring.count, np.int32(1))


def window(g: Graph, ring: Ring, frame: dict[str, str]) -> dict[str, str]:
    """All slots, oldest first, then the frame [1, h, w, C]: [1, K + 1, h, w, C].

    Before the video's start its oldest frame stands in.
    """
    length = ring.capacity
    after = g.add("Add", ring.count, np.arange(length, dtype=np.int32))
    slots = g.add("Mod", after, np.int32(length))
    rows = g.add("Concat", slots, np.array([length], np.int32), axis=0)
    first = g.add("Sub", np.int32(length), size(g, ring))
    index = g.add("Max", first, np.arange(length + 1, dtype=np.int32))
    rows = g.add("Gather", rows, index)

    def read(name: str, x: str) -> str:
        x = g.add("Unsqueeze", x, integers([1]))
        joined = g.add("Concat", ring.slots[name], x, axis=1)
        return g.add("Gather", joined, rows, axis=1)

    return {name: read(name, x) for name, x in frame.items()}


def drawn(
    g: Graph, ring: Ring, rows: int, draw: str, instead: dict[str, str]
) -> tuple[dict[str, str], str]:
    """`rows` distinct items, those of the largest draw [1, K].

    From an empty ring `instead` [1, h, w, C] is read, in all rows.

    Returns:
        Items [1, rows, h, w, C], and bool [rows], which of them hold one.
    """
    filled, empty = size(g, ring), is_empty(g, ring)
    valid = g.add("Less", np.arange(ring.capacity, dtype=np.int32), filled)
    score = g.reshape(draw, ring.capacity)
    index = g.top_k(g.add("Where", valid, score, np.float32(-1)), rows)
    readable = g.add("Less", g.cast(index, np.int32), filled)

    def read(name: str, x: str) -> str:
        slots = g.add("Gather", ring.slots[name], index, axis=1)
        return g.add("Where", empty, g.add("Unsqueeze", x, integers([1])), slots)

    items = {name: read(name, x) for name, x in instead.items()}
    return items, g.add("Or", readable, empty)


def push(
    g: Graph, ring: Ring, items: dict[str, str], stamp: str, where: str
) -> dict[str, str]:
    """The ring's leaves with items [1, h, w, C] over its oldest slot, or as it is.

    What is written where `where` is False is what stands there: a graph has no write
    out of bounds. One slot is touched, so a runtime whose output is the input's own
    buffer copies nothing.
    """
    head = g.cast(g.add("Mod", ring.count, np.int32(ring.capacity)), np.int64)
    place = g.reshape(g.add("Concat", integers([0]), head, axis=0), 1, 2)

    def write(slots: str, x: str) -> str:
        x = g.add("Where", where, x, g.add("GatherND", slots, place))
        return g.add("ScatterND", slots, place, x)

    # A multiple of K less changes neither head nor size.
    limit = np.int32(_MAX_COUNT // ring.capacity * ring.capacity)
    count = g.add("Add", ring.count, g.cast(where, np.int32))
    over = g.add("GreaterOrEqual", count, limit)
    return {
        **{f".slots{name}": write(ring.slots[name], x) for name, x in items.items()},
        ".stamp": write(ring.stamp, stamp),
        ".count": g.add("Where", over, np.int32(ring.capacity), count),
    }
