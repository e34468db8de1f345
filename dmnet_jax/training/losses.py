"""Losses of dense labelling, per sample, in float32.

Every loss is a mean over samples of a number that depends on that sample only. The
mean over equal shards of a batch is therefore the batch's loss exactly, on any number
of devices; a Dice over all pixels of a batch would change with the split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

if TYPE_CHECKING:
    # Shapes for readers, type checkers and tests.
    from jaxtyping import Float, Float32, Integer


def dice_loss(
    logits: Float[ArrayLike, "B H W C"],
    labels: Integer[ArrayLike, "B H W"],
    *,
    ignore: int = 255,
    include_background: bool = True,
    smooth: float = 1.0,
) -> Float32[Array, ""]:
    """Soft Dice loss (paper, section 2.3), the mean over samples and classes of

        1 - (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth)

    with p the softmax, g the label as 0 or 1, and sums over the scored pixels of one
    sample (Milletari et al., V-Net, 2016, without their squares).

    Every class counts in every sample. One that is absent from a sample's label costs
    P / (P + smooth) for a predicted mass of P pixels: 0 where it is not predicted, and
    at most 1. It pushes P to 0, and cannot drown the present classes: its gradient on
    its own logits, added up over a sample, is below smooth P / (P + smooth)^2 <= 1/4
    before the mean over classes, at any image size. Its value, though, stays near 1
    until P is down to a few pixels, so values compare only between runs with the same
    classes and image size.

    Args:
        logits: of any float dtype.
        labels: in 0..C-1 or `ignore`; other values are not checked here
            and belong to no class.
        ignore: label of pixels that are not scored. A sample that has only such pixels
            costs 0 and has a zero gradient.
        include_background: whether class 0 is in the mean over classes. Its term is
            what makes every pixel count where a foreground class is large or absent.
        smooth: pixels, > 0; twice what optax calls `smooth`.

    Returns:
        In [0, 1].

    Raises:
        ValueError: on shapes that do not fit, `smooth` <= 0, or no class left.
    """
    logits, labels = _checked(logits, labels)
    if not smooth > 0:
        raise ValueError(f"smooth must be > 0, not {smooth}: absent classes divide 0/0")
    first = 0 if include_background else 1
    if logits.shape[-1] <= first:
        raise ValueError(f"no foreground class in logits {logits.shape}")
    scored = (labels != ignore)[..., None]
    probability = jax.nn.softmax(logits.astype(jnp.float32)) * scored
    actual = jax.nn.one_hot(labels, logits.shape[-1]) * scored
    overlap = 2 * jnp.sum(probability * actual, axis=(1, 2))
    total = jnp.sum(probability, axis=(1, 2)) + jnp.sum(actual, axis=(1, 2))
    loss = 1 - (overlap + smooth) / (total + smooth)
    return jnp.mean(loss[:, first:])


def cross_entropy_loss(
    logits: Float[ArrayLike, "B H W C"],
    labels: Integer[ArrayLike, "B H W"],
    *,
    ignore: int = 255,
) -> Float32[Array, ""]:
    """Softmax cross-entropy, the mean over scored pixels, then over samples.

    Args:
        logits: of any float dtype.
        labels: in 0..C-1 or `ignore`, as in `dice_loss`.
        ignore: label of pixels that are not scored. A sample that has only such pixels
            costs 0 and has a zero gradient.

    Returns:
        Nats a pixel.

    Raises:
        ValueError: on shapes that do not fit.
    """
    log_p, scored = _log_likelihood(logits, labels, ignore)
    return _mean(-log_p, scored)


def log_jaccard_loss(
    logits: Float[ArrayLike, "B H W C"],
    labels: Integer[ArrayLike, "B H W"],
    *,
    ignore: int = 255,
    smooth: float = 1.0,
) -> Float32[Array, ""]:
    """Logarithm of the soft Jaccard index, the mean over samples and classes of

        -log((sum(p g) + smooth) / (sum(p) + sum(g) - sum(p g) + smooth))

    as in TernausNet (Shvets et al., 2018), whose release sums over classes, takes the
    index over a batch and has 1e-15 for `smooth`: a class that is absent from a sample
    would then cost 35 and be pushed without end. Terms as in `dice_loss`.

    Args:
        logits: of any float dtype.
        labels: in 0..C-1 or `ignore`.
        ignore: label of pixels that are not scored.
        smooth: pixels, > 0.

    Returns:
        Not negative.

    Raises:
        ValueError: on shapes that do not fit.
    """
    logits, labels = _checked(logits, labels)
    scored = (labels != ignore)[..., None]
    probability = jax.nn.softmax(logits.astype(jnp.float32)) * scored
    actual = jax.nn.one_hot(labels, logits.shape[-1]) * scored
    overlap = jnp.sum(probability * actual, axis=(1, 2))
    union = jnp.sum(probability + actual, axis=(1, 2)) - overlap
    return jnp.mean(jnp.log((union + smooth) / (overlap + smooth)))


def focal_loss(
    logits: Float[ArrayLike, "B H W C"],
    labels: Integer[ArrayLike, "B H W"],
    *,
    ignore: int = 255,
    gamma: float = 6.0,
) -> Float32[Array, ""]:
    """Cross-entropy times (1 - p)^gamma, p the probability of the true class.

    Lin et al., ICCV 2017; gamma 6 is LWANet's. A mean as `cross_entropy_loss` is.

    Args:
        logits: of any float dtype.
        labels: in 0..C-1 or `ignore`.
        ignore: label of pixels that are not scored.
        gamma: 0 gives the cross-entropy.

    Raises:
        ValueError: on shapes that do not fit.
    """
    log_p, scored = _log_likelihood(logits, labels, ignore)
    # Where p is 1 the power's derivative would be 0 / 0 for gamma < 1.
    rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(jnp.float32).tiny)
    return _mean(-(rest**gamma) * log_p, scored)


def ohem_loss(
    logits: Float[ArrayLike, "B H W C"],
    labels: Integer[ArrayLike, "B H W"],
    *,
    ignore: int = 255,
    threshold: float = 0.7,
    kept: float = 1 / 16,
) -> Float32[Array, ""]:
    """Cross-entropy of the hard pixels (online hard example mining, as in TDNet).

    Hard is a pixel whose true class has a probability below `threshold`; and at least
    the share `kept` of a sample's pixels, the hardest, are taken.

    Args:
        logits: of any float dtype.
        labels: in 0..C-1 or `ignore`.
        ignore: label of pixels that are not scored.
        threshold: a probability.
        kept: of a sample's H W pixels.

    Returns:
        The mean over hard pixels, then over samples.

    Raises:
        ValueError: on shapes that do not fit.
    """
    log_p, scored = _log_likelihood(logits, labels, ignore)
    flat = jnp.where(scored, log_p, 0).reshape(len(log_p), -1)
    count = max(1, int(kept * flat.shape[1]))
    least = -jax.lax.top_k(jax.lax.stop_gradient(-flat), count)[0][:, -1]
    bound = jnp.maximum(least, jnp.log(threshold))[:, None, None]
    return _mean(-log_p, scored & (log_p <= bound))


def combined_loss(
    logits: Float[ArrayLike, "B H W C"],
    labels: Integer[ArrayLike, "B H W"],
    *,
    dice: float = 1.0,
    cross_entropy: float = 0.0,
    log_jaccard: float = 0.0,
    focal: float = 0.0,
    ohem: float = 0.0,
    ignore: int = 255,
) -> Float32[Array, ""]:
    """Weighted sum of this file's losses; the paper has Dice alone.

    A term of weight 0 is not computed.

    Args:
        logits: of any float dtype.
        labels: at the size of the logits.
        dice: weight of `dice_loss`.
        cross_entropy: weight of `cross_entropy_loss`.
        log_jaccard: weight of `log_jaccard_loss`.
        focal: weight of `focal_loss`.
        ohem: weight of `ohem_loss`.
        ignore: label of pixels that are not scored.

    Raises:
        ValueError: on shapes that do not fit, or if all weights are 0.
    """
    terms = (
        (dice, dice_loss),
        (cross_entropy, cross_entropy_loss),
        (log_jaccard, log_jaccard_loss),
        (focal, focal_loss),
        (ohem, ohem_loss),
    )
    if not any(weight for weight, _ in terms):
        raise ValueError("all weights are 0: nothing to train on")
    loss = jnp.float32(0)
    for weight, term in terms:
        if weight:
            loss += weight * term(logits, labels, ignore=ignore)
    return loss


def _log_likelihood(
    logits: ArrayLike, labels: ArrayLike, ignore: int
) -> tuple[Array, Array]:
    """float32 [B, H, W], the true class's; 0 where not scored. And bool, if it is."""
    logits, labels = _checked(logits, labels)
    scored = labels != ignore
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    actual = jax.nn.one_hot(labels, logits.shape[-1]) * scored[..., None]
    # `where` rather than a product: a masked class has a logit of -inf, and 0 * -inf
    # would be NaN.
    return jnp.sum(jnp.where(actual > 0, log_p, 0), axis=-1), scored


def _mean(loss: Array, scored: Array) -> Array:
    """Over scored pixels [B, H, W], then over samples."""
    total = jnp.sum(jnp.where(scored, loss, 0), axis=(1, 2))
    return jnp.mean(total / jnp.maximum(jnp.sum(scored, axis=(1, 2)), 1))


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim != 4 or logits.shape[:3] != labels.shape:
        raise ValueError(
            f"logits {logits.shape} and labels {labels.shape} do not fit: "
            "want [B, H, W, C] and [B, H, W], at one size"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    return logits, labels
