"""Losses of dense labelling, per sample, in float32.

Every loss is a mean over samples of a number that depends on that sample only. The
mean over equal shards of a batch is therefore the batch's loss exactly, on any number
of devices; a Dice over all pixels of a batch would change with the split.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def dice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    ignore: int = 255,
    include_background: bool = True,
    smooth: float = 1.0,
) -> Array:
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
        logits: float [B, H, W, C], any float dtype.
        labels: int [B, H, W], in 0..C-1 or `ignore`; other values are not checked here
            and belong to no class.
        ignore: label of pixels that are not scored. A sample that has only such pixels
            costs 0 and has a zero gradient.
        include_background: whether class 0 is in the mean over classes. Its term is
            what makes every pixel count where a foreground class is large or absent.
        smooth: pixels, > 0; twice what optax calls `smooth`.

    Returns:
        float32 [], in [0, 1].

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
    logits: ArrayLike, labels: ArrayLike, *, ignore: int = 255
) -> Array:
    """Softmax cross-entropy, the mean over scored pixels, then over samples.

    Args:
        logits: float [B, H, W, C], any float dtype.
        labels: int [B, H, W], in 0..C-1 or `ignore`, as in `dice_loss`.
        ignore: label of pixels that are not scored. A sample that has only such pixels
            costs 0 and has a zero gradient.

    Returns:
        float32 [], nats a pixel.

    Raises:
        ValueError: on shapes that do not fit.
    """
    logits, labels = _checked(logits, labels)
    scored = labels != ignore
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32))
    actual = jax.nn.one_hot(labels, logits.shape[-1]) * scored[..., None]
    # `where` rather than a product: a masked class has a logit of -inf, and 0 * -inf
    # would be NaN.
    loss = -jnp.sum(jnp.where(actual > 0, log_probability, 0), axis=(1, 2, 3))
    return jnp.mean(loss / jnp.maximum(jnp.sum(scored, axis=(1, 2)), 1))


def combined_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    dice: float = 1.0,
    cross_entropy: float = 0.0,
    ignore: int = 255,
) -> Array:
    """Weighted sum of `dice_loss` and `cross_entropy_loss`; the paper has Dice alone.

    A term of weight 0 is not computed.

    Args:
        logits: float [B, H, W, C], any float dtype.
        labels: int [B, H, W], at the size of the logits.
        dice: weight of the Dice loss.
        cross_entropy: weight of the cross-entropy.
        ignore: label of pixels that are not scored.

    Returns:
        float32 [].

    Raises:
        ValueError: on shapes that do not fit, or if both weights are 0.
    """
    if not (dice or cross_entropy):
        raise ValueError("dice and cross_entropy are both 0: nothing to train on")
    loss = jnp.float32(0)
    if dice:
        loss += dice * dice_loss(logits, labels, ignore=ignore)
    if cross_entropy:
        loss += cross_entropy * cross_entropy_loss(logits, labels, ignore=ignore)
    return loss


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
