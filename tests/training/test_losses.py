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
    for picture, truth in zip(logits.astype(np.float64), labels, strict=True):
        for k in range(first, CLASSES):
            both = predicted = actual = 0.0
            for place in np.ndindex(truth.shape):
                if truth[place] == 255:
                    continue
                p = softmax(picture[place])[k]
                predicted += p
                if truth[place] == k:
                    both += p
                    actual += 1
            losses.append(1 - (2 * both + smooth) / (predicted + actual + smooth))
    return np.mean(losses)


def loop_cross_entropy(logits, labels):
    losses = []
    for picture, truth in zip(logits.astype(np.float64), labels, strict=True):
        pixels = [
            -np.log(softmax(picture[place])[truth[place]])
            for place in np.ndindex(truth.shape)
            if truth[place] != 255
        ]
        losses.append(np.mean(pixels) if pixels else 0.0)
    return np.mean(losses)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("smooth", [1.0, 0.1])
def test_dice_is_the_loop(include_background, smooth):
    logits, labels = make_batch(0)
    labels[1] = 255
    labels[2] = 2
    loss = dice_loss(
        logits, labels, include_background=include_background, smooth=smooth
    )
    want = loop_dice(
        logits, labels, smooth=smooth, first=0 if include_background else 1
    )
    np.testing.assert_allclose(loss, want, rtol=2e-6)


def test_dice_is_optax_where_both_are_defined():
    logits, labels = make_batch(1, ignored=0)
    theirs = optax.losses.dice_loss(
        jnp.asarray(logits), jax.nn.one_hot(labels, CLASSES), smooth=0.5
    )
    np.testing.assert_allclose(dice_loss(logits, labels), theirs.mean(), rtol=2e-6)


def test_cross_entropy_is_the_loop():
    logits, labels = make_batch(2)
    labels[3] = 255
    np.testing.assert_allclose(
        cross_entropy_loss(logits, labels),
        loop_cross_entropy(logits, labels),
        rtol=1e-5,
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_mean_over_equal_shards_is_the_batch(loss):
    logits, labels = make_batch(3, rows=8)
    labels[:3, :4] = 255
    shards = [
        loss(logits[i : i + 2], labels[i : i + 2]) for i in range(0, len(labels), 2)
    ]
    np.testing.assert_allclose(np.mean(shards), loss(logits, labels), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_have_no_say(loss):
    logits, labels = make_batch(4)
    changed = np.where((labels == 255)[..., None], -7 * logits + 1, logits)
    assert not np.allclose(changed, logits)
    np.testing.assert_allclose(loss(changed, labels), loss(logits, labels), rtol=1e-6)
    gradient = jax.grad(lambda x: loss(x, labels))(logits)
    assert np.all(np.asarray(gradient)[labels == 255] == 0)
    assert np.any(np.asarray(gradient)[labels != 255] != 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_a_scored_pixel_costs_nothing(loss):
    logits, labels = make_batch(5)
    value, gradient = jax.value_and_grad(loss)(logits, np.full_like(labels, 255))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def one_class_everywhere(class_id, size=(16, 16), strength=30.0):
    logits = np.zeros((1, *size, CLASSES), np.float32)
    logits[..., class_id] = strength
    return logits


def true_probabilities(picture, truth):
    """Of scored pixels, in float64."""
    places = [place for place in np.ndindex(truth.shape) if truth[place] != 255]
    return np.array([softmax(np.float64(picture[p]))[truth[p]] for p in places])


def test_log_jaccard_is_the_loop():
    logits, labels = make_batch(11)
    losses = []
    for picture, truth in zip(logits, labels, strict=True):
        scored = truth != 255
        p = np.apply_along_axis(softmax, -1, np.float64(picture))[scored]
        g = np.eye(CLASSES)[truth[scored]]
        both = (p * g).sum(0)
        losses.append(-np.log((both + 1) / ((p + g).sum(0) - both + 1)))
    np.testing.assert_allclose(log_jaccard_loss(logits, labels), np.mean(losses), 1e-5)


def test_focal_and_ohem_are_the_loops():
    logits, labels = make_batch(12)
    focal, ohem, hardest = [], [], []
    for picture, truth in zip(logits, labels, strict=True):
        p = true_probabilities(picture, truth)
        focal.append(np.mean(-((1 - p) ** 6) * np.log(p)))
        ohem.append(np.mean(-np.log(p[p < 0.7])))
        hardest.append(np.mean(-np.log(np.sort(p)[:15])))
    np.testing.assert_allclose(focal_loss(logits, labels), np.mean(focal), 1e-5)
    np.testing.assert_allclose(ohem_loss(logits, labels), np.mean(ohem), 1e-5)
    # None is below this threshold, so half of the 30 pixels are taken.
    found = ohem_loss(logits, labels, threshold=1e-12, kept=0.5)
    np.testing.assert_allclose(found, np.mean(hardest), 1e-5)


def test_absent_class_is_free_unless_predicted():
    labels = np.zeros((1, 16, 16), np.uint8)
    # All background, and so predicted: three absent classes cost nothing.
    assert dice_loss(one_class_everywhere(0), labels) < 1e-5
    # All taken for class 1: background and class 1 are wrong, the others still free.
    loss = dice_loss(one_class_everywhere(1), labels)
    np.testing.assert_allclose(loss, 2 * (1 - 1 / 257) / CLASSES, rtol=1e-5)


@pytest.mark.parametrize("mass", [1e-3, 1.0, 30.0, 200.0])
def test_absent_class_cannot_drown_the_others(mass):
    labels = np.zeros((1, 16, 16), np.uint8)
    share = mass / 256
    logits = np.full((1, 16, 16, CLASSES), -30.0, np.float32)
    logits[..., 0], logits[..., 1] = np.log1p(-share), np.log(share)

    # Background left out, the foreground classes are all absent: the term alone.
    gradient = jax.grad(
        lambda x: dice_loss(x, labels, include_background=False) * (CLASSES - 1)
    )(jnp.asarray(logits))
    pull = np.asarray(gradient)[..., 1].sum()
    assert np.all(np.asarray(gradient)[..., 1] > 0)
    want = mass * (1 - share) / (mass + 1) ** 2
    np.testing.assert_allclose(pull, want, rtol=1e-4)
    assert pull <= 0.25


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_loss_is_float32_and_computed_so(dtype):
    logits, labels = make_batch(6, size=(64, 80), rows=1)
    low = jnp.asarray(logits, dtype)
    loss = combined_loss(low, labels, dice=1.0, cross_entropy=0.5)
    assert loss.dtype == jnp.float32
    want = combined_loss(low.astype(jnp.float32), labels, dice=1.0, cross_entropy=0.5)
    assert loss == want
    assert jax.grad(combined_loss)(low, labels).dtype == dtype


@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_logits_have_finite_gradients(loss):
    logits, labels = make_batch(7)
    gradient = jax.grad(loss)(logits * 1e4, labels)
    assert np.isfinite(gradient).all()


def test_combined_is_the_weighted_sum():
    logits, labels = make_batch(8)
    both = combined_loss(logits, labels, dice=0.7, cross_entropy=0.3)
    parts = 0.7 * dice_loss(logits, labels) + 0.3 * cross_entropy_loss(logits, labels)
    np.testing.assert_allclose(both, parts, rtol=1e-6)
    np.testing.assert_array_equal(
        combined_loss(logits, labels), dice_loss(logits, labels)
    )
    # A masked class has an infinite cross-entropy, which a weight of 0 must not meet.
    masked = logits.copy()
    masked[..., 1] = -np.inf
    assert np.isfinite(combined_loss(masked, labels))


def test_descending_the_loss_finds_the_label():
    _, labels = make_batch(9, rows=2)
    logits = jnp.zeros((*labels.shape, CLASSES))
    step = jax.jit(lambda x: x - 20 * jax.grad(dice_loss)(x, labels))
    for _ in range(100):
        logits = step(logits)
    found = np.asarray(logits.argmax(-1))
    np.testing.assert_array_equal(found[labels != 255], labels[labels != 255])


def test_mistakes_are_told():
    logits, labels = make_batch(10)
    with pytest.raises(ValueError, match="do not fit"):
        dice_loss(logits, labels[:, ::2])
    with pytest.raises(ValueError, match="integers"):
        cross_entropy_loss(logits, labels.astype(np.float32))
    with pytest.raises(ValueError, match="smooth"):
        dice_loss(logits, labels, smooth=0)
    with pytest.raises(ValueError, match="no foreground"):
        dice_loss(logits[..., :1], labels, include_background=False)
    with pytest.raises(ValueError, match="nothing to train"):
        combined_loss(logits, labels, dice=0)


@pytest.mark.parametrize("loss", [*LOSSES, combined_loss])
def test_shapes_are_as_annotated_and_others_refused(loss, monkeypatch):
    checked = shapes.typechecked(monkeypatch, [losses], [loss])
    (call,) = vars(checked).values()
    logits, labels = make_batch(0)
    assert call(logits, labels).shape == ()
    for wrong in ((logits, labels[..., 1:]), (logits, labels / 1), (labels, labels)):
        with pytest.raises(jaxtyping.TypeCheckError):
            call(*wrong)
