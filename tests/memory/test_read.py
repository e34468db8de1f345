import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from dmnet_jax import memory as mem

K = 5


def item(t: Array | float) -> dict:
    t = jnp.asarray(t, jnp.float32)
    return {"map": t + 1 + jnp.zeros((2, 3)), "label": (3 * t + 1).astype(jnp.int32)}


ITEMS = [jax.tree.map(np.asarray, item(t)) for t in range(3 * K + 1)]
NOTHING = jax.tree.map(np.zeros_like, ITEMS[0])


@jax.jit
def filled(count: Array) -> mem.RingBuffer:
    """A ring holding steps 0 … count - 1, with stamps of 10 times the step."""

    def step(t: Array, ring: mem.RingBuffer) -> mem.RingBuffer:
        return mem.push(ring, item(t), stamp=10 * t)

    return jax.lax.fori_loop(0, count, step, mem.init(item(0), capacity=K))


def assert_reads(readout: mem.Readout, steps: list[int | None]) -> None:
    """The rows are the items of these steps; None is a masked row."""
    np.testing.assert_array_equal(readout.mask, [t is not None for t in steps])
    np.testing.assert_array_equal(
        readout.stamp, [mem.EMPTY if t is None else 10 * t for t in steps]
    )
    items = jax.tree.map(np.asarray, readout.items)
    for i, t in enumerate(steps):
        row = jax.tree.map(lambda x, i=i: x[i], items)
        chex.assert_trees_all_equal(row, NOTHING if t is None else ITEMS[t])


read_last = jax.jit(mem.read_last, static_argnums=1)
read_window = jax.jit(mem.read_window, static_argnums=1)
read_uniform = jax.jit(mem.read_uniform, static_argnums=1)
read_top_k = jax.jit(mem.read_top_k, static_argnums=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3 * K), st.integers(1, K))
def test_read_last_is_the_tail_of_the_history(count, n):
    tail = list(range(count))[-n:]
    assert_reads(read_last(filled(count), n), [None] * (n - len(tail)) + tail)


@pytest.mark.parametrize("count", [0, 2, K, K + 2])
def test_read_all_is_in_slot_order(count):
    slots: list[int | None] = [None] * K
    for t in range(count):
        slots[t % K] = t
    assert_reads(mem.read_all(filled(count)), slots)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3 * K), st.integers(1, K + 2), st.integers(0, 2**31 - 1))
def test_read_uniform_is_distinct_and_valid(count, n, seed):
    readout = read_uniform(filled(count), n, jax.random.key(seed))
    valid_steps = list(range(count))[-K:]
    rows = min(n, len(valid_steps))
    steps = [s // 10 for s in readout.stamp.tolist()[:rows]]
    assert len(set(steps)) == rows
    assert set(steps) <= set(valid_steps)
    assert_reads(readout, [*steps, *[None] * (n - rows)])


@pytest.mark.parametrize("count", [4, K + 3])
def test_read_uniform_draws_every_permutation_equally_often(count):
    ring = filled(count)
    draws = 12_000
    keys = jax.random.split(jax.random.key(1), draws)
    read = jax.jit(jax.vmap(lambda key: mem.read_uniform(ring, 2, key).stamp))
    pairs, observed = np.unique(np.asarray(read(keys)), axis=0, return_counts=True)
    valid_steps = min(count, K)
    assert len(pairs) == valid_steps * (valid_steps - 1)
    expected = draws / len(pairs)
    chi_square = ((observed - expected) ** 2 / expected).sum()
    # Mean and deviation of the statistic are f and sqrt(2 f); five deviations.
    freedom = len(pairs) - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_read_uniform_accepts_typed_and_raw_keys():
    ring = filled(K)
    typed = mem.read_uniform(ring, 3, jax.random.key(7))
    raw = mem.read_uniform(ring, 3, jax.random.PRNGKey(7))
    chex.assert_trees_all_equal(typed, raw)


SCORES = st.one_of(
    st.floats(-100, 100, width=16), st.sampled_from([np.nan, np.inf, -np.inf])
)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 3 * K),
    st.integers(1, K + 2),
    st.lists(SCORES, min_size=K, max_size=K),
)
def test_read_top_k_sorts_valid_slots(count, n, scores):
    step_of = {t % K: t for t in range(count)}

    def rank(slot: int) -> float:
        return -np.inf if np.isnan(scores[slot]) else scores[slot] + 0.0

    best = sorted(step_of, key=lambda slot: (-rank(slot), slot))[:n]
    score = jnp.array(scores, jnp.float32) + 0.0
    readout = read_top_k(filled(count), n, score)
    assert_reads(readout, [step_of[s] for s in best] + [None] * (n - len(best)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3 * K), st.integers(1, K))
def test_read_window_repeats_the_first_item_before_the_start(count, n):
    window = [max(t, 0) for t in range(count - n, count + 1)]
    actual = read_window(filled(count), n, item(count))
    for row, t in enumerate(window):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda x, row=row: np.asarray(x[row]), actual), ITEMS[t]
        )


@pytest.mark.parametrize("count", [0, 1, K])
def test_default_item_replaces_rows_that_cannot_be_read(count):
    readout = read_last(filled(count), 3)
    actual = mem.stand_in(readout, item(9))
    np.testing.assert_array_equal(actual.stamp, readout.stamp)
    if count:
        chex.assert_trees_all_equal(actual, readout)
    else:
        assert actual.mask.all()
        for row in range(3):
            actual_row = jax.tree.map(
                lambda x, row=row: np.asarray(x[row]), actual.items
            )
            chex.assert_trees_all_equal(actual_row, ITEMS[9])


def test_empty_memory_reads_are_masked_zeros():
    ring = mem.init(item(0), capacity=K)
    nothing: list[int | None] = [None] * K
    assert_reads(mem.read_all(ring), nothing)
    assert_reads(mem.read_last(ring, K), nothing)
    assert_reads(mem.read_uniform(ring, K, jax.random.key(0)), nothing)
    assert_reads(mem.read_top_k(ring, K, jnp.full(K, np.nan)), nothing)


def test_reads_of_a_ring_without_leaves():
    ring = mem.push(mem.init({}, capacity=2), {}, stamp=4)
    readout = mem.read_uniform(ring, 3, jax.random.key(0))
    assert readout.items == {}
    np.testing.assert_array_equal(readout.stamp, [4, mem.EMPTY, mem.EMPTY])


def test_vmap_equals_a_loop_over_videos():
    counts = [0, 2, K, K + 3]
    keys = jax.random.split(jax.random.key(3), len(counts))
    scores = jax.random.normal(jax.random.key(4), (len(counts), K))

    def reads(ring: mem.RingBuffer, key: Array, score: Array) -> tuple:
        return (
            mem.read_all(ring),
            mem.read_last(ring, 3),
            mem.read_uniform(ring, 3, key),
            mem.read_top_k(ring, 3, score),
        )

    rings = [filled(c) for c in counts]
    batched = jax.tree.map(lambda *xs: jnp.stack(xs), *rings)
    together = jax.jit(jax.vmap(reads))(batched, keys, scores)
    for b, ring in enumerate(rings):
        alone = reads(ring, keys[b], scores[b])
        chex.assert_trees_all_equal(jax.tree.map(lambda x, b=b: x[b], together), alone)


@pytest.mark.parametrize("count", [0, 2, K + 2])
def test_gradients_reach_exactly_the_rows_that_are_read(count):
    xs = jnp.linspace(1.0, 2.0, max(count, 1) * 3).reshape(-1, 3)

    def loss(xs: Array, n: int) -> Array:
        ring = mem.init(xs[0], capacity=K)
        for t in range(count):
            ring = mem.push(ring, xs[t], stamp=t)
        last = mem.read_last(ring, n).items
        uniform = mem.read_uniform(ring, n, jax.random.key(0)).items
        top = mem.read_top_k(ring, n, jnp.sum(ring.slots, axis=1)).items
        return jnp.sum(last**2) + jnp.sum(jnp.sqrt(1 + uniform)) + jnp.sum(top)

    gradient = np.asarray(jax.grad(loss)(xs, K))
    if count == 0:
        np.testing.assert_array_equal(gradient, 0)
        return
    valid_steps = np.arange(count) >= count - K
    expected = 2 * xs + 0.5 / np.sqrt(1 + xs) + 1
    np.testing.assert_allclose(gradient, valid_steps[:, None] * expected, rtol=1e-5)


@pytest.mark.parametrize("n", [0, -1])
def test_reading_zero_rows_is_refused(n):
    ring = filled(2)
    for read in (
        lambda: mem.read_last(ring, n),
        lambda: mem.read_uniform(ring, n, jax.random.key(0)),
        lambda: mem.read_top_k(ring, n, jnp.zeros(K)),
    ):
        with pytest.raises(ValueError, match=f"n is {n}; a read returns at least"):
            read()


def test_read_last_is_limited_to_the_capacity():
    with pytest.raises(ValueError, match=rf"n is {K + 1}, .* last {K} items"):
        mem.read_last(filled(K), K + 1)


@pytest.mark.parametrize("score", [jnp.zeros(K - 1), jnp.zeros(K, jnp.int32)])
def test_read_top_k_requires_one_float_per_slot(score):
    with pytest.raises(ValueError, match=rf"score is .* must be float \[{K}\]"):
        mem.read_top_k(filled(K), 2, score)


def test_batched_ring_error_suggests_vmap():
    rings = jax.tree.map(lambda x: x[None], filled(2))
    for read in (
        mem.read_all,
        lambda r: mem.read_last(r, 1),
        lambda r: mem.read_uniform(r, 1, jax.random.key(0)),
        lambda r: mem.read_top_k(r, 1, jnp.zeros(K)),
    ):
        with pytest.raises(ValueError, match="under jax.vmap"):
            read(rings)


@pytest.mark.parametrize("mask", [(True, True, True), (False, True, False)])
def test_attention_is_the_weighted_mean_of_valid_rows(mask):
    rng = np.random.default_rng(0)
    query, key, value = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((2, 3, 4), (3, 5, 4), (3, 5, 6))
    )
    actual = jax.jit(mem.attend)(query, key, value, np.array(mask))
    keys, values = key[list(mask)].reshape(-1, 4), value[list(mask)].reshape(-1, 6)
    weights = np.exp(query @ keys.T / 2)
    expected = weights @ values / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_attention_over_no_valid_rows_is_zero_and_so_is_its_gradient():
    def read(query):
        nothing = jnp.zeros(2, bool)
        return mem.attend(query, jnp.ones((2, 5, 4)), jnp.ones((2, 5, 6)), nothing)

    query = jnp.ones((3, 4))
    assert not read(query).any()
    gradient = jax.grad(lambda q: read(q).sum())(query)
    assert np.isfinite(gradient).all() and not gradient.any()
    with pytest.raises(ValueError, match="do not match"):
        mem.attend(query, jnp.ones((2, 5, 3)), jnp.ones((2, 5, 6)), jnp.ones(2, bool))


def test_attention_with_a_null_slot_is_scaled_toward_nothing():
    rng = np.random.default_rng(2)
    query, key, value = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((3, 4), (2, 5, 4), (2, 5, 6))
    )
    null = np.array([-100.0, 0.5, 100.0], np.float32)
    weights = np.exp(query @ key[0].T / 2)
    expected = (
        weights @ value[0] / (weights.sum(-1) + np.exp(null.astype(float)))[:, None]
    )
    actual = mem.attend(query, key, value, jnp.array([True, False]), null)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    gradient = jax.grad(
        lambda q: mem.attend(q, key, value, jnp.zeros(2, bool), null).sum()
    )(query)
    assert np.isfinite(gradient).all() and not gradient.any()
