import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from dmnet_jax.training import losses
from dmnet_jax.training.losses import (
    combined_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    log_jaccard_loss,
    ohem_loss,
)
from tests.support import shapes

CLASSES = 4
LOSSES = [dice_loss, cross_entropy_loss, log_jaccard_loss, focal_loss, ohem_loss]


def make_batch(seed, rows=4, size=(5, 6), ignored=0.2):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, *size, CLASSES)).astype(np.float32) * 3
    labels = rng.integers(0, CLASSES, (rows, *size))
    labels[rng.random(labels.shape) < ignored] = 255
    return logits, labels.astype(np.uint8)


def softmax(values):
    exponent = np.exp(values - values.max())
    return exponent / exponent.sum()


def loop_dice(logits, labels, *, smooth, first):
    losses = []
    for image, truth in zip(logits.astype(np.float64), labels, strict=True):
        for k in range(first, CLASSES):
            both = predicted = actual = 0.0
            for pixel in np.ndindex(truth.shape):
                if truth[pixel] == 255:
                    continue
                p = softmax(image[pixel])[k]
                predicted += p
                if truth[pixel] == k:
                    both += p
                    actual += 1
            losses.append(1 - (2 * both + smooth) / (predicted + actual + smooth))
    return np.mean(losses)


def loop_cross_entropy(logits, labels):
    losses = []
    for image, truth in zip(logits.astype(np.float64), labels, strict=True):
        terms = [
            -np.log(softmax(image[pixel])[truth[pixel]])
            for pixel in np.ndindex(truth.shape)
            if truth[pixel] != 255
        ]
        losses.append(np.mean(terms) if terms else 0.0)
    return np.mean(losses)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("smooth", [1.0, 0.1])
def test_dice_equals_a_loop_over_pixels(include_background, smooth):
    logits, labels = make_batch(0)
    labels[1] = 255
    labels[2] = 2
    loss = dice_loss(
        logits, labels, include_background=include_background, smooth=smooth
    )
    expected = loop_dice(
        logits, labels, smooth=smooth, first=0 if include_background else 1
    )
    np.testing.assert_allclose(loss, expected, rtol=2e-6)


def test_dice_equals_that_of_optax_without_ignored_pixels():
    logits, labels = make_batch(1, ignored=0)
    optax_loss = optax.losses.dice_loss(
        jnp.asarray(logits), jax.nn.one_hot(labels, CLASSES), smooth=0.5
    )
    np.testing.assert_allclose(dice_loss(logits, labels), optax_loss.mean(), rtol=2e-6)


def test_cross_entropy_equals_a_loop_over_pixels():
    logits, labels = make_batch(2)
    labels[3] = 255
    np.testing.assert_allclose(
        cross_entropy_loss(logits, labels),
        loop_cross_entropy(logits, labels),
        rtol=1e-5,
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_mean_over_equal_shards_is_the_loss_of_the_batch(loss):
    logits, labels = make_batch(3, rows=8)
    labels[:3, :4] = 255
    shards = [
        loss(logits[i : i + 2], labels[i : i + 2]) for i in range(0, len(labels), 2)
    ]
    np.testing.assert_allclose(np.mean(shards), loss(logits, labels), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_have_no_influence(loss):
    logits, labels = make_batch(4)
    changed = np.where((labels == 255)[..., None], -7 * logits + 1, logits)
    assert not np.allclose(changed, logits)
    np.testing.assert_allclose(loss(changed, labels), loss(logits, labels), rtol=1e-6)
    gradient = jax.grad(lambda x: loss(x, labels))(logits)
    assert np.all(np.asarray(gradient)[labels == 255] == 0)
    assert np.any(np.asarray(gradient)[labels != 255] != 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_scored_pixels_has_no_loss(loss):
    logits, labels = make_batch(5)
    value, gradient = jax.value_and_grad(loss)(logits, np.full_like(labels, 255))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def one_class_everywhere(class_id, size=(16, 16), strength=30.0):
    logits = np.zeros((1, *size, CLASSES), np.float32)
    logits[..., class_id] = strength
    return logits


def true_probabilities(image, truth):
    """Returns the probabilities of the true class at scored pixels, in float64."""
    pixels = [pixel for pixel in np.ndindex(truth.shape) if truth[pixel] != 255]
    return np.array([softmax(np.float64(image[p]))[truth[p]] for p in pixels])


def test_log_jaccard_equals_a_loop_over_samples():
    logits, labels = make_batch(11)
    losses = []
    for image, truth in zip(logits, labels, strict=True):
        scored = truth != 255
        p = np.apply_along_axis(softmax, -1, np.float64(image))[scored]
        g = np.eye(CLASSES)[truth[scored]]
        both = (p * g).sum(0)
        losses.append(-np.log((both + 1) / ((p + g).sum(0) - both + 1)))
    np.testing.assert_allclose(log_jaccard_loss(logits, labels), np.mean(losses), 1e-5)


def test_focal_and_ohem_equal_loops_over_samples():
    logits, labels = make_batch(12)
    focal, ohem, hardest = [], [], []
    for image, truth in zip(logits, labels, strict=True):
        p = true_probabilities(image, truth)
        focal.append(np.mean(-((1 - p) ** 6) * np.log(p)))
        ohem.append(np.mean(-np.log(p[p < 0.7])))
        hardest.append(np.mean(-np.log(np.sort(p)[:15])))
    np.testing.assert_allclose(focal_loss(logits, labels), np.mean(focal), 1e-5)
    np.testing.assert_allclose(ohem_loss(logits, labels), np.mean(ohem), 1e-5)
    # No pixel is below this threshold, so half of the 30 pixels are used.
    loss = ohem_loss(logits, labels, threshold=1e-12, min_fraction=0.5)
    np.testing.assert_allclose(loss, np.mean(hardest), 1e-5)


def test_absent_class_has_no_loss_unless_predicted():
    labels = np.zeros((1, 16, 16), np.uint8)
    # Everything is background and predicted as such: the absent classes cost nothing.
    assert dice_loss(one_class_everywhere(0), labels) < 1e-5
    # Everything is predicted as class 1: only background and class 1 have a loss.
    loss = dice_loss(one_class_everywhere(1), labels)
    np.testing.assert_allclose(loss, 2 * (1 - 1 / 257) / CLASSES, rtol=1e-5)


@pytest.mark.parametrize("mass", [1e-3, 1.0, 30.0, 200.0])
def test_the_gradient_of_an_absent_class_is_bounded(mass):
    labels = np.zeros((1, 16, 16), np.uint8)
    share = mass / 256
    logits = np.full((1, 16, 16, CLASSES), -30.0, np.float32)
    logits[..., 0], logits[..., 1] = np.log1p(-share), np.log(share)

    # Without background, all classes are absent, so this is the term alone.
    gradient = jax.grad(
        lambda x: dice_loss(x, labels, include_background=False) * (CLASSES - 1)
    )(jnp.asarray(logits))
    pull = np.asarray(gradient)[..., 1].sum()
    assert np.all(np.asarray(gradient)[..., 1] > 0)
    expected = mass * (1 - share) / (mass + 1) ** 2
    np.testing.assert_allclose(pull, expected, rtol=1e-4)
    assert pull <= 0.25


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_loss_is_computed_in_float32(dtype):
    logits, labels = make_batch(6, size=(64, 80), rows=1)
    low = jnp.asarray(logits, dtype)
    loss = combined_loss(low, labels, dice=1.0, cross_entropy=0.5)
    assert loss.dtype == jnp.float32
    expected = combined_loss(
        low.astype(jnp.float32), labels, dice=1.0, cross_entropy=0.5
    )
    assert loss == expected
    assert jax.grad(combined_loss)(low, labels).dtype == dtype


@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_logits_have_finite_gradients(loss):
    logits, labels = make_batch(7)
    gradient = jax.grad(loss)(logits * 1e4, labels)
    assert np.isfinite(gradient).all()


def test_combined_loss_is_the_weighted_sum():
    logits, labels = make_batch(8)
    both = combined_loss(logits, labels, dice=0.7, cross_entropy=0.3)
    parts = 0.7 * dice_loss(logits, labels) + 0.3 * cross_entropy_loss(logits, labels)
    np.testing.assert_allclose(both, parts, rtol=1e-6)
    np.testing.assert_array_equal(
        combined_loss(logits, labels), dice_loss(logits, labels)
    )
    # The cross-entropy of a masked class is infinite: a term of weight 0 must not be
    # computed.
    masked = logits.copy()
    masked[..., 1] = -np.inf
    assert np.isfinite(combined_loss(masked, labels))


def test_gradient_descent_finds_the_labels():
    _, labels = make_batch(9, rows=2)
    logits = jnp.zeros((*labels.shape, CLASSES))
    step = jax.jit(lambda x: x - 20 * jax.grad(dice_loss)(x, labels))
    for _ in range(100):
        logits = step(logits)
    predicted = np.asarray(logits.argmax(-1))
    np.testing.assert_array_equal(predicted[labels != 255], labels[labels != 255])


def test_invalid_arguments_are_rejected():
    logits, labels = make_batch(10)
    with pytest.raises(ValueError, match="do not match"):
        dice_loss(logits, labels[:, ::2])
    with pytest.raises(ValueError, match="integers"):
        cross_entropy_loss(logits, labels.astype(np.float32))
    with pytest.raises(ValueError, match="smooth"):
        dice_loss(logits, labels, smooth=0)
    with pytest.raises(ValueError, match="no foreground"):
        dice_loss(logits[..., :1], labels, include_background=False)
    with pytest.raises(ValueError, match="at least one must be positive"):
        combined_loss(logits, labels, dice=0)


@pytest.mark.parametrize("loss", [*LOSSES, combined_loss])
def test_annotated_shapes_are_checked(loss, monkeypatch):
    checked = shapes.typechecked(monkeypatch, [losses], [loss])
    (call,) = vars(checked).values()
    logits, labels = make_batch(0)
    assert call(logits, labels).shape == ()
    for wrong in ((logits, labels[..., 1:]), (logits, labels / 1), (labels, labels)):
        with pytest.raises(jaxtyping.TypeCheckError):
            call(*wrong)
