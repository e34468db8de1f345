"""Changes of the areas of classes, against their definition in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.nn.areas import area_changes

rng = np.random.default_rng(0)
NEW, OLD = (
    np.asarray(jax.nn.softmax(3 * rng.normal(size=(2, 16, 64, 3)).astype(np.float32)))
    for _ in range(2)
)


def entropy(x):
    return -(x * jnp.log(jnp.maximum(x, 1e-4))).sum(-1, keepdims=True)


def changes(new, old):
    return area_changes(new, old, entropy(new))


def one_hot(labels):
    return np.eye(3, dtype=np.float32)[labels][None]


def measures(new, old):
    """Returns the five measures of a region [h, w, C] in plain NumPy."""
    lost = np.maximum(old - new, 0).mean((0, 1))
    gained = np.maximum(new - old, 0).mean((0, 1))
    entropy = -(new * np.log(np.maximum(new, 1e-4))).sum(-1).mean()
    return np.log(
        [
            (np.minimum(lost, gained).sum() + 1e-4) / 0.03,
            (np.abs(lost - gained).sum() + 1e-4) / 0.03,
            (entropy + 1e-3) / 0.1,
            *((diversity(x.mean((0, 1))) + 1e-2) / 0.3 for x in (new, old)),
        ]
    )


def diversity(shares):
    return -(shares * np.log(np.maximum(shares, 1e-6))).sum()


def test_they_are_those_of_a_window_and_of_the_frame():
    result = changes(NEW, OLD)
    assert result.shape == (2, 4, 16, 10) and result.dtype == jnp.float32
    for n, y, x in np.ndindex(2, 4, 16):
        rows = slice(4 * max(0, y - 5), 4 * (y + 6))
        columns = slice(4 * max(0, x - 5), 4 * (x + 6))
        expected = [
            *measures(NEW[n, rows, columns], OLD[n, rows, columns]),
            *measures(NEW[n], OLD[n]),
        ]
        np.testing.assert_allclose(result[n, y, x], expected, atol=1e-4)


def test_what_moves_keeps_its_area_and_what_is_hidden_loses_it():
    labels = np.zeros((2, 16, 64), np.uint8)
    labels[0, 4:12, 8:20] = labels[1, 4:12, 12:24] = 1
    before, moved, hidden = (
        one_hot(labels[0]),
        one_hot(labels[1]),
        one_hot(0 * labels[0]),
    )
    same = changes(before, before)[0, 0, 0]
    motion, loss = (changes(x, before)[0, 0, 0] for x in (moved, hidden))
    assert motion[5] > same[5] + 3 and motion[6] == same[6]
    assert loss[6] > same[6] + 3 and loss[5] == same[5]
    # Only where the rectangle is hidden does the new frame show one class fewer.
    assert motion[8] == motion[9] == same[8] == loss[9] > loss[8] + 1


@pytest.mark.parametrize("other", [NEW, OLD])
def test_gradients_are_finite(other):
    gradient = jax.grad(lambda x: changes(x, NEW).sum())(jnp.asarray(other))
    assert np.isfinite(gradient).all()
