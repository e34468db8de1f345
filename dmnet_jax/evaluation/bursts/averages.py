"""Training-free memories: rules that combine predictions for single frames.

They are baselines for a trained memory. Each rule is causal and gets a `Seen` per
frame:

    state, scores = rule.update(state, seen)  # the first state is None
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

WEIGHTS = (0.4, 0.6, 0.8)
"""Weights of the past in averages."""
EXPONENTIAL, AFFINITY = "exponential average", "affinity average"
FAMILIES: dict[str, tuple[str, ...]] = {
    EXPONENTIAL: tuple(f"average {weight}" for weight in WEIGHTS),
    AFFINITY: (
        "affinity by confidence",
        *(f"affinity {weight}" for weight in WEIGHTS[1:]),
    ),
}
"""Families of rules, of which the best is reported."""
WINDOW = 9
"""Side length of the affinity's window, in positions of 16 pixels."""
TEMPERATURE = 0.1
"""Temperature of the affinity's softmax over cosine similarities."""
REACH = 1.0
"""Standard deviation of the motion per frame, in positions. With uninformative features
of a corrupted frame, this prior keeps the past in place instead of blurring it."""


class Seen(NamedTuple):
    """Results of a network without memory for a frame.

    Attributes:
        logits: float32 [1, h, w, C].
        features: [1, H/16, W/16, 96], encoder features; None if the network has none.
        corrupted: whether the frame is corrupted; for oracle rules, as this is unknown
            in practice.
    """

    logits: Array
    features: Array | None
    corrupted: bool


class Rule(NamedTuple):
    """A rule that combines predictions over time.

    Attributes:
        name: name of its row.
        update: function from a state (None before the first frame) and a `Seen` to the
            next state and scores [1, h, w, C], whose argmax is predicted.
    """

    name: str
    update: Callable[[Any, Seen], tuple[Any, Array]]


def rules(features: bool) -> tuple[Rule, ...]:
    """Returns all rules; affinity rules only if the network has `features`."""
    result = [
        Rule("last mask", hold),
        Rule("last clean mask (told)", hold_clean),
    ]
    weights = zip(FAMILIES[EXPONENTIAL], WEIGHTS, strict=True)
    result += [Rule(name, partial(average, weight)) for name, weight in weights]
    if features:
        weights = zip(FAMILIES[AFFINITY], (None, *WEIGHTS[1:]), strict=True)
        result += [
            Rule(name, partial(average_along, weight)) for name, weight in weights
        ]
    return tuple(result)


def hold(before: Array | None, seen: Seen) -> tuple[Array, Array]:
    """Predicts the result of the previous frame; on the first frame, its own."""
    return seen.logits, seen.logits if before is None else before


def hold_clean(before: Array | None, seen: Seen) -> tuple[Array, Array]:
    """Predicts the result of the last clean frame. An oracle, so an upper bound."""
    held = before if seen.corrupted and before is not None else seen.logits
    return held, held


def average(weight: float, before: Array | None, seen: Seen) -> tuple[Array, Array]:
    """Exponential average of probabilities; `weight` is the weight of the past."""
    now = jax.nn.softmax(seen.logits)
    mean = now if before is None else weight * before + (1 - weight) * now
    return mean, mean


def average_along(
    weight: float | None, before: tuple[Array, Array] | None, seen: Seen
) -> tuple[tuple[Array, Array], Array]:
    """Average with the past warped by a local affinity.

    S_t = c_t z_t + (1 - c_t) A_t S_(t-1). For each position of the encoder's map at
    1/16, A_t is a softmax over a window of the previous map, of feature similarity
    minus squared distance. With a `weight`, z_t are probabilities and c_t = 1 - weight,
    as in `average`. Without, z_t are log-probabilities and c_t, per pixel, is 1 minus
    their entropy normalized to [0, 1], so uncertain pixels use more of the past.
    """
    assert seen.features is not None
    scores = jax.nn.log_softmax(seen.logits)
    if weight is not None:
        scores = jnp.exp(scores)
    if before is not None:
        past, features = before
        share = weight
        if share is None:
            entropy = -jnp.sum(jnp.exp(scores) * scores, axis=-1, keepdims=True)
            share = entropy / jnp.log(scores.shape[-1])
        moved = _moved(past, seen.features, features)
        scores = (1 - share) * scores + share * moved
    return (scores, seen.features), scores


@jax.jit
def _moved(past: Array, features: Array, before: Array) -> Array:
    _, height, width, _ = features.shape
    return move_along(past, local_affinity(features, before), (height, width))


def local_affinity(now: Array, before: Array) -> Array:
    """Affinity of each position to a window around it in the previous frame.

    Args:
        now: features [B, h, w, C].
        before: features [B, h, w, C] of the previous frame.

    Returns:
        float32 [B, WINDOW**2, h, w], sums to 1 over axis 1; 0 outside the frame.
    """
    now, before = (_unit(x.astype(jnp.float32)) for x in (now, before))
    alike = jnp.einsum("bhwc,bkhwc->bkhw", now, windows(before))
    inside = windows(jnp.ones_like(before[..., :1]))[..., 0] > 0
    offset = np.arange(WINDOW) - WINDOW // 2
    far = (offset[:, None] ** 2 + offset**2).reshape(-1, 1, 1) / (2 * REACH**2)
    scores = alike / TEMPERATURE - far
    return jax.nn.softmax(jnp.where(inside, scores, -jnp.inf), axis=1)


def move_along(values: Array, affinity: Array, size: tuple[int, int]) -> Array:
    """Warps values of the previous frame to the current frame.

    Args:
        values: [B, H, W, C], where H and W are multiples of h and w.
        affinity: [B, WINDOW**2, h, w], from `local_affinity`.
        size: (h, w).

    Returns:
        [B, H, W, C].
    """
    (batch, height, width, classes), (h, w) = values.shape, size
    if height % h or width % w:
        raise ValueError(
            f"values of {height}x{width} must be a multiple of the affinity's {h}x{w}"
        )
    rows, columns = height // h, width // w
    # Blocks become channels, which keeps the full resolution at the coarse affinity.
    blocks = values.reshape(batch, h, rows, w, columns, classes)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h, w, -1)
    moved = jnp.einsum("bkhw,bkhwc->bhwc", affinity, windows(blocks))
    moved = moved.reshape(batch, h, w, rows, columns, classes)
    return moved.transpose(0, 1, 3, 2, 4, 5).reshape(values.shape)


def windows(x: Array) -> Array:
    """Extracts a window around each position: [B, h, w, C] -> [B, WINDOW**2, h, w, C].

    Padded with zeros outside the map. The position itself is in the middle of axis 1.
    """
    height, width = x.shape[1:3]
    edge = WINDOW // 2
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    down, right = np.divmod(np.arange(WINDOW**2), WINDOW)
    rows = down[:, None] + np.arange(height)
    columns = right[:, None] + np.arange(width)
    return padded[:, rows[:, :, None], columns[:, None, :]]


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
