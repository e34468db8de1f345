"""Segmentation losses, computed per sample in float32.

Every loss is a mean over samples, and each sample's term depends on that sample only.
The mean over equal shards of a batch is therefore exactly the loss of the batch, on
any number of devices. A Dice over all pixels of a batch would depend on the sharding.
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
    """Computes the soft Dice loss (paper, section 2.3).

    It is the mean over samples and classes of

        1 - (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth)

    where p is the softmax, g the label as 0 or 1, and sums are over the scored pixels
    of one sample (Milletari et al., V-Net, 2016, without their squares).

    Every class counts in every sample. A class that is absent from a sample's label
    costs P / (P + smooth) for a predicted mass of P pixels: 0 if it is not predicted,
    and at most 1. This pushes P to 0 without dominating the present classes: the
    gradient on its own logits, summed over a sample, is below
    smooth P / (P + smooth)^2 <= 1/4 before the mean over classes, at any image size.
    However, its value stays near 1 until P is a few pixels, so losses are comparable
    only between runs with the same classes and image size.

    Args:
        logits: logits of any float dtype.
        labels: labels in 0..C-1 or `ignore`. Other values are not checked and belong
            to no class.
        ignore: label of pixels that are not scored. The loss and gradient of a sample
            without scored pixels are 0.
        include_background: whether class 0 is included in the mean over classes. With
            its term, every pixel counts even if a foreground class is large or absent.
        smooth: smoothing in pixels, > 0; twice optax's `smooth`.

    Returns:
        The loss, in [0, 1].

    Raises:
        ValueError: shapes do not match, `smooth` <= 0, or there is no class to score.
    """
    logits, labels = _checked(logits, labels)
    if not smooth > 0:
        raise ValueError(
            f"smooth is {smooth}; it must be > 0, or absent classes divide 0 by 0"
        )
    first = 0 if include_background else 1
    if logits.shape[-1] <= first:
        raise ValueError(f"logits {logits.shape} have no foreground class")
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
    """Computes the softmax cross-entropy, averaged over pixels, then over samples.

    Args:
        logits: logits of any float dtype.
        labels: labels in 0..C-1 or `ignore`, as in `dice_loss`.
        ignore: label of pixels that are not scored. The loss and gradient of a sample
            without scored pixels are 0.

    Returns:
        The loss in nats per pixel.

    Raises:
        ValueError: shapes do not match.
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
    """Computes the negative logarithm of the soft Jaccard index.

    It is the mean over samples and classes of

        -log((sum(p g) + smooth) / (sum(p) + sum(g) - sum(p g) + smooth))

    with p and g as in `dice_loss`, as in TernausNet (Shvets et al., 2018). TernausNet's
    released code sums over classes, computes the index over a batch, and uses a
    `smooth` of 1e-15. A class that is absent from a sample would then cost 35 and be
    pushed down without end.

    Args:
        logits: logits of any float dtype.
        labels: labels in 0..C-1 or `ignore`.
        ignore: label of pixels that are not scored.
        smooth: smoothing in pixels, > 0.

    Returns:
        The loss, not negative.

    Raises:
        ValueError: shapes do not match.
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
    """Computes the focal loss (Lin et al., ICCV 2017).

    It is the cross-entropy times (1 - p)^gamma, where p is the probability of the true
    class, averaged as in `cross_entropy_loss`.

    Args:
        logits: logits of any float dtype.
        labels: labels in 0..C-1 or `ignore`.
        ignore: label of pixels that are not scored.
        gamma: exponent; LWANet uses 6, and 0 gives the cross-entropy.

    Raises:
        ValueError: shapes do not match.
    """
    log_p, scored = _log_likelihood(logits, labels, ignore)
    # At p = 1, the derivative of the power would be 0 / 0 for gamma < 1.
    rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(jnp.float32).tiny)
    return _mean(-(rest**gamma) * log_p, scored)


def ohem_loss(
    logits: Float[ArrayLike, "B H W C"],
    labels: Integer[ArrayLike, "B H W"],
    *,
    ignore: int = 255,
    threshold: float = 0.7,
    min_fraction: float = 1 / 16,
) -> Float32[Array, ""]:
    """Computes the cross-entropy of hard pixels, as in TDNet.

    This is online hard example mining: a pixel is hard if the probability of its true
    class is below `threshold`. If a sample has fewer hard pixels than `min_fraction`,
    its hardest pixels are used.

    Args:
        logits: logits of any float dtype.
        labels: labels in 0..C-1 or `ignore`.
        ignore: label of pixels that are not scored.
        threshold: a probability.
        min_fraction: minimum fraction of a sample's H * W pixels.

    Returns:
        The mean over hard pixels, then over samples.

    Raises:
        ValueError: shapes do not match.
    """
    log_p, scored = _log_likelihood(logits, labels, ignore)
    flat = jnp.where(scored, log_p, 0).reshape(len(log_p), -1)
    count = max(1, int(min_fraction * flat.shape[1]))
    # log_p of the `count`-th hardest pixel of each sample.
    hardest = -jax.lax.top_k(jax.lax.stop_gradient(-flat), count)[0][:, -1]
    bound = jnp.maximum(hardest, jnp.log(threshold))[:, None, None]
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
    """Computes a weighted sum of losses. The paper uses Dice only.

    Losses of weight 0 are not computed.

    Args:
        logits: logits of any float dtype.
        labels: labels at the size of the logits.
        dice: weight of `dice_loss`.
        cross_entropy: weight of `cross_entropy_loss`.
        log_jaccard: weight of `log_jaccard_loss`.
        focal: weight of `focal_loss`.
        ohem: weight of `ohem_loss`.
        ignore: label of pixels that are not scored.

    Raises:
        ValueError: shapes do not match, or all weights are 0.
    """
    terms = (
        (dice, dice_loss),
        (cross_entropy, cross_entropy_loss),
        (log_jaccard, log_jaccard_loss),
        (focal, focal_loss),
        (ohem, ohem_loss),
    )
    if not any(weight for weight, _ in terms):
        raise ValueError("all loss weights are 0; at least one must be positive")
    loss = jnp.float32(0)
    for weight, term in terms:
        if weight:
            loss += weight * term(logits, labels, ignore=ignore)
    return loss


def _log_likelihood(
    logits: ArrayLike, labels: ArrayLike, ignore: int
) -> tuple[Array, Array]:
    """Returns the log-likelihood of the true class and which pixels are scored.

    Returns:
        float32 [B, H, W], 0 where not scored, and bool [B, H, W].
    """
    logits, labels = _checked(logits, labels)
    scored = labels != ignore
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    actual = jax.nn.one_hot(labels, logits.shape[-1]) * scored[..., None]
    # `where` instead of a product: the logit of a masked class is -inf, and 0 * -inf is
    # NaN.
    return jnp.sum(jnp.where(actual > 0, log_p, 0), axis=-1), scored


def _mean(loss: Array, scored: Array) -> Array:
    """Averages a loss [B, H, W] over scored pixels, then over samples."""
    total = jnp.sum(jnp.where(scored, loss, 0), axis=(1, 2))
    return jnp.mean(total / jnp.maximum(jnp.sum(scored, axis=(1, 2)), 1))


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim != 4 or logits.shape[:3] != labels.shape:
        raise ValueError(
            f"logits {logits.shape} and labels {labels.shape} do not match: expected "
            "[B, H, W, C] and [B, H, W] of the same size"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels are {labels.dtype}; they must be integers")
    return logits, labels
