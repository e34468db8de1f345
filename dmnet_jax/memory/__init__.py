"""Memories for streams: immutable, of fixed shape, usable in `jit`, `scan` and `vmap`.

A ring buffer keeps the last items of any pytree type. A policy decides which items to
keep. Reads return a fixed number of rows and a mask. `DualMemory` combines a short
memory of recent items with a long memory of admitted ones. Nothing here depends on
images or networks. All functions are written for one stream; use `jax.vmap` for
several.

In a live loop, donate the ring to update it in place:
`jax.jit(step, donate_argnums=0)`.

Examples:
    Remember the rare readings of a sensor. The policy is an ordinary function. This one
    admits a reading that is far from all remembered ones:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dmnet_jax import memory
    >>> def novel(ring, candidate):
    ...     known = memory.read_all(ring)
    ...     distance = jnp.linalg.norm(known.items - candidate.item, axis=-1)
    ...     return jnp.min(distance, where=known.mask, initial=jnp.inf) > 1.0
    >>> def step(ring, reading):
    ...     time, x = reading
    ...     candidate = memory.Candidate(x, confidence=1.0, frame=time)
    ...     return memory.admit(ring, candidate, policy=novel)
    >>> def watch(stream):  # [T, D]
    ...     ring = memory.init(stream[0], capacity=4)
    ...     return jax.lax.scan(step, ring, (jnp.arange(len(stream)), stream))

    Two sensors at once. The second one sends a NaN, which is never admitted:

    >>> streams = jnp.array([[0.0, 0.3, 5.0, 0.1, 5.2], [2.0, jnp.nan, 2.5, 2.1, -4.0]])
    >>> rings, admitted = jax.jit(jax.vmap(watch))(streams[..., None])
    >>> print(admitted)
    [[ True False  True False False]
     [ True False False False  True]]
    >>> print(rings.stamp)
    [[ 0  2 -1 -1]
     [ 0  4 -1 -1]]
"""

from dmnet_jax.memory._dual import (
    KEEP,
    RESET_ALL,
    RESET_LOCAL,
    DualMemory,
    advance,
    init_dual,
    judge,
    prefill,
    prefill_local,
    read_key,
    remember,
    reset,
)
from dmnet_jax.memory._policy import (
    AdmissionPolicy,
    Candidate,
    admit,
    all_of,
    always,
    any_of,
    confidence,
    confident,
    dissimilar,
    every,
    most_redundant,
    novel,
    similarity,
)
from dmnet_jax.memory._read import (
    Readout,
    attend,
    read_all,
    read_last,
    read_top_k,
    read_uniform,
    read_window,
    stand_in,
)
from dmnet_jax.memory._ring import EMPTY, RingBuffer, init, latest, push
from dmnet_jax.memory._state import GatedState, blend, init_state

__all__ = [
    "AdmissionPolicy",
    "Candidate",
    "DualMemory",
    "EMPTY",
    "GatedState",
    "KEEP",
    "RESET_ALL",
    "RESET_LOCAL",
    "Readout",
    "RingBuffer",
    "admit",
    "advance",
    "all_of",
    "always",
    "any_of",
    "attend",
    "blend",
    "confidence",
    "confident",
    "dissimilar",
    "every",
    "init",
    "init_dual",
    "init_state",
    "judge",
    "latest",
    "most_redundant",
    "novel",
    "prefill",
    "prefill_local",
    "push",
    "read_all",
    "read_key",
    "read_last",
    "read_top_k",
    "read_uniform",
    "read_window",
    "remember",
    "reset",
    "similarity",
    "stand_in",
]
