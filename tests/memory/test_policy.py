from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from dmnet_jax import memory as mem

K = 3
ITEM = {"map": jnp.ones((2, 2)), "id": jnp.int32(3), "pair": (jnp.ones(1), {})}


def candidate(item=1.0, confidence=0.0, frame=0) -> mem.Candidate:
    return mem.Candidate(jnp.asarray(item, jnp.float32), confidence, frame)


def ring_of(*items: float, stamps: list[int] | None = None) -> mem.RingBuffer:
    ring = mem.init(jnp.float32(0), capacity=K)
    for i, x in enumerate(items):
        ring = mem.push(ring, jnp.float32(x), stamp=stamps[i] if stamps else i)
    return ring


def never(ring: mem.RingBuffer, candidate: mem.Candidate) -> Array:
    return jnp.bool_(False)


# Scores.


def entropy_by_loops(probs: np.ndarray) -> float:
    total = 0.0
    for pixel in probs.reshape(-1, probs.shape[-1]).astype(np.float64):
        total += sum(float(p) * np.log(p) for p in pixel if p > 0)
    return total / (probs.shape[0] * probs.shape[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([np.float32, np.float16]))
def test_confidence_is_the_mean_negative_entropy(seed, dtype):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([0.2] * 3, size=(4, 5)).astype(dtype)
    r = jax.jit(mem.confidence)(probs)
    assert r.dtype == jnp.float32
    assert r <= 1e-3
    np.testing.assert_allclose(r, entropy_by_loops(probs), rtol=1e-5, atol=1e-6)


def test_confidence_by_hand():
    assert mem.confidence(jax.nn.one_hot(jnp.array([[0, 1], [2, 0]]), 3)) == 0
    np.testing.assert_allclose(
        mem.confidence(jnp.full((2, 3, 4), 0.25)), -np.log(4), rtol=1e-6
    )
    half = jnp.array([[[1.0, 0.0], [0.5, 0.5]]])
    np.testing.assert_allclose(mem.confidence(half), -np.log(2) / 2, rtol=1e-6)


def test_scores_are_float32_for_bfloat16():
    probs = jax.nn.softmax(jax.random.normal(jax.random.key(0), (64, 64, 5)))
    low = probs.astype(jnp.bfloat16)
    assert mem.confidence(low).dtype == jnp.float32
    np.testing.assert_allclose(
        mem.confidence(low), entropy_by_loops(np.asarray(low, np.float32)), rtol=1e-5
    )
    a, b = low, (low + 0.01).astype(jnp.bfloat16)
    exact = np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    assert mem.similarity(a, b).dtype == jnp.float32
    np.testing.assert_allclose(mem.similarity(a, b), -exact, rtol=1e-5)


@pytest.mark.parametrize(
    "probs", [jnp.ones((2, 3)), jnp.ones((1, 2, 2, 3)), jnp.ones((2, 2, 3), jnp.uint8)]
)
def test_confidence_requires_one_float_map(probs):
    with pytest.raises(ValueError, match=r"must be float \[H, W, C\]"):
        mem.confidence(probs)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_similarity_is_the_negative_distance_over_all_leaves(seed):
    rng = np.random.default_rng(seed)
    a = {"x": rng.normal(size=(3, 4)), "y": (rng.normal(size=2), rng.integers(9))}
    b = {"x": rng.normal(size=(3, 4)), "y": (rng.normal(size=2), rng.integers(9))}
    total = sum(
        float(((x - y) ** 2).sum())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    s = mem.similarity(a, b)
    np.testing.assert_allclose(s, -np.sqrt(total), rtol=1e-5)
    assert s == mem.similarity(b, a)
    assert mem.similarity(a, a) == 0


def test_similarity_of_unsigned_and_of_empty_items():
    assert mem.similarity(jnp.uint8(3), jnp.uint8(7)) == -4
    assert mem.similarity(jnp.bool_(True), jnp.bool_(False)) == -1
    assert mem.similarity({}, {}) == 0


def test_similarity_does_not_broadcast():
    with pytest.raises(ValueError, match=r"second item\['a'\] is float32\[1\]"):
        mem.similarity({"a": jnp.zeros(2)}, {"a": jnp.zeros(1)})


def test_scores_have_a_finite_zero_gradient():
    x = jnp.ones((2, 2, 3))
    one_hot = jax.nn.one_hot(jnp.zeros((2, 2), int), 3)
    for gradient in (
        jax.grad(lambda x: mem.similarity(x, x))(x),
        jax.grad(lambda x: mem.similarity(x, 2 * x))(x),
        jax.grad(mem.confidence)(one_hot),
        jax.grad(mem.confidence)(x / 3),
    ):
        np.testing.assert_array_equal(gradient, 0)


# Policies.


def decides(policy: mem.AdmissionPolicy, ring: mem.RingBuffer, **kwargs) -> bool:
    answer = policy(ring, candidate(**kwargs))
    assert answer.shape == () and answer.dtype == jnp.bool_
    return bool(answer)


@settings(max_examples=25, deadline=None)
@given(st.floats(-50, -(2**-10), width=32))
def test_thresholds_are_strict_inequalities(threshold):
    at = np.float32(threshold)
    above, below = np.nextafter(at, np.float32(9)), np.nextafter(at, np.float32(-99))
    confident = mem.confident(float(at))
    ring = ring_of(0.0)
    assert not confident(ring, candidate(confidence=at))
    assert confident(ring, candidate(confidence=above))
    assert not confident(ring, candidate(confidence=below))
    # A single number x is at similarity -|x| to 0.
    s = mem.similarity(mem.latest(ring), jnp.float32(-at))
    dissimilar = mem.dissimilar(float(s))
    assert not dissimilar(ring, candidate(-at))
    assert not mem.dissimilar(np.nextafter(s, np.float32(-99)))(ring, candidate(-at))
    assert mem.dissimilar(np.nextafter(s, np.float32(9)))(ring, candidate(-at))


def test_confident_compares_low_precision_in_float32():
    # -0.08 is not a bfloat16; rounded to one, the threshold would equal the score.
    r = jnp.bfloat16(-0.08)
    assert float(r) < -0.08
    assert not decides(mem.confident(-0.08), ring_of(0.0), confidence=r)
    assert decides(mem.confident(-0.0802), ring_of(0.0), confidence=r)


def test_dissimilar_compares_with_the_latest_item_only():
    ring = ring_of(0.0, 10.0)
    assert decides(mem.dissimilar(-5.0), ring, item=0.0)
    assert not decides(mem.dissimilar(-5.0), ring, item=9.0)
    assert decides(mem.dissimilar(-5.0), ring_of(), item=0.0)


def test_every_counts_from_the_latest_stamp():
    ring = ring_of(1.0, 2.0, stamps=[0, 7])
    for frame in range(7, 14):
        assert decides(mem.every(3), ring, frame=frame) == (frame >= 10)
    assert decides(mem.every(3), ring_of(), frame=1)


def test_every_survives_overflow_of_the_frame_index():
    ring = ring_of(1.0, stamps=[2**31 - 2])
    assert not decides(mem.every(4), ring, frame=jnp.int32(-(2**31) + 1))
    assert decides(mem.every(4), ring, frame=jnp.int32(-(2**31) + 2))


@pytest.mark.parametrize("a", [False, True])
@pytest.mark.parametrize("b", [False, True])
def test_combinators_follow_boolean_logic(a, b):
    ring = ring_of(0.0)
    p, q = (mem.always() if x else never for x in (a, b))
    assert decides(mem.all_of(p, q), ring) == (a and b)
    assert decides(mem.any_of(p, q), ring) == (a or b)
    assert decides(mem.all_of(p), ring) == decides(mem.any_of(p), ring) == a
    assert decides(mem.all_of(), ring) is True
    assert decides(mem.any_of(), ring) is False
    nested = mem.any_of(mem.all_of(p, q), mem.all_of(mem.always(), q))
    assert decides(nested, ring) == b


def test_thresholds_may_be_traced_and_batched():
    ring = ring_of(0.0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def answers(alpha: Array, beta: Array, k: Array) -> Array:
        policy = mem.all_of(mem.confident(alpha), mem.dissimilar(beta), mem.every(k))
        return policy(ring, candidate(item=2.0, confidence=-0.5, frame=5))

    def call(alpha: float, beta: float, k: int) -> bool:
        return bool(answers(jnp.float32(alpha), jnp.float32(beta), jnp.int32(k)))

    assert call(-0.6, -1.0, 5)
    assert not call(-0.5, -1.0, 5)
    assert not call(-0.6, -2.0, 5)
    assert not call(-0.6, -1.0, 6)
    alphas = jnp.array([-0.4, -0.5, -0.6])
    batched = jax.vmap(lambda a: mem.confident(a)(ring, candidate(confidence=-0.5)))
    np.testing.assert_array_equal(batched(alphas), [False, False, True])


# Admission.

POLICIES: dict[str, tuple[Callable[[], mem.AdmissionPolicy], Callable]] = {
    "confident": (lambda: mem.confident(-0.5), lambda last, x, r, t: r > -0.5),
    "dissimilar": (
        lambda: mem.dissimilar(-1.0),
        lambda last, x, r, t: -abs(x - last[0]) < -1.0,
    ),
    "every": (lambda: mem.every(3), lambda last, x, r, t: t - last[1] >= 3),
    "paper": (
        lambda: mem.all_of(mem.confident(-0.5), mem.dissimilar(-1.0)),
        lambda last, x, r, t: r > -0.5 and -abs(x - last[0]) < -1.0,
    ),
    "never": (lambda: never, lambda last, x, r, t: False),
}
T = 10
BAD = [np.nan, np.inf, -np.inf]
VALUES = st.one_of(st.integers(-3, 3).map(float), st.sampled_from(BAD))
SCORES = st.one_of(st.sampled_from([-0.75, -0.5, -0.25]), st.sampled_from(BAD))


def roll_with(name: str) -> Callable:
    def roll(xs: Array, rs: Array) -> tuple[mem.RingBuffer, Array]:
        def step(ring: mem.RingBuffer, row: tuple):
            x, r, t = row
            return mem.admit(ring, mem.Candidate(x, r, t), policy=POLICIES[name][0]())

        ring = mem.init(xs[0], capacity=K)
        return jax.lax.scan(step, ring, (xs, rs, jnp.arange(T)))

    return jax.jit(roll)


ROLLS = {name: roll_with(name) for name in POLICIES}


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(VALUES, min_size=T, max_size=T), st.lists(SCORES, min_size=T, max_size=T)
)
def test_admission_equals_a_plain_loop(name, xs, rs):
    stored, expected = [], []
    for t, (x, r) in enumerate(zip(xs, rs, strict=True)):
        finite = np.isfinite(x) and np.isfinite(r)
        wants = POLICIES[name][1]
        take = bool(finite and (not stored or wants(stored[-1], x, r, t)))
        expected.append(take)
        if take:
            stored.append((x, t))
    ring, admitted = ROLLS[name](jnp.array(xs), jnp.array(rs))
    np.testing.assert_array_equal(admitted, expected)
    last = mem.read_last(ring, K)
    rows = [(float(x), int(s)) for x, s in zip(last.items, last.stamp, strict=True)]
    assert rows[K - min(K, len(stored)) :] == stored[-K:]
    assert ring.count == len(stored)


def poisoned() -> list:
    """Copies of ITEM, each with one invalid value in a float leaf."""
    leaves, structure = jax.tree.flatten(ITEM)
    actual = []
    for i, leaf in enumerate(leaves):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        for position in np.ndindex(leaf.shape):
            for bad in BAD:
                changed = [*leaves]
                changed[i] = leaf.at[position].set(bad)
                actual.append(jax.tree.unflatten(structure, changed))
    return actual


@pytest.mark.parametrize("already", [0, 1, K + 1])
def test_non_finite_items_are_never_admitted(already):
    ring = mem.init(ITEM, capacity=K)
    for t in range(already):
        ring = mem.push(ring, ITEM, stamp=t)

    @jax.jit
    def admit(item, r):
        return mem.admit(ring, mem.Candidate(item, r, 9), policy=mem.always())

    items = poisoned()
    assert len(items) == 15
    cases = [(x, 0.0) for x in items] + [(ITEM, r) for r in BAD]
    for item, r in cases:
        after, admitted = admit(item, jnp.float32(r))
        assert not admitted
        chex.assert_trees_all_equal(after, ring)
    assert admit(ITEM, jnp.float32(0))[1]


def test_first_finite_candidate_is_admitted_under_any_policy():
    ring, admitted = mem.admit(ring_of(), candidate(np.nan), policy=never)
    assert not admitted
    ring, admitted = mem.admit(ring, candidate(5.0, frame=1), policy=never)
    assert admitted
    ring, admitted = mem.admit(ring, candidate(6.0, frame=2), policy=never)
    assert not admitted
    assert mem.latest(ring) == 5 and ring.stamp[0] == 1


def test_admit_batches_over_videos():
    rings = jax.tree.map(lambda *x: jnp.stack(x), ring_of(), ring_of(0.0), ring_of(9.0))
    candidates = mem.Candidate(jnp.full(3, 9.0), jnp.zeros(3), jnp.full(3, 4))
    after, admitted = jax.vmap(
        lambda r, c: mem.admit(r, c, policy=mem.dissimilar(-1.0))
    )(rings, candidates)
    np.testing.assert_array_equal(admitted, [True, True, False])
    np.testing.assert_array_equal(after.count, [1, 2, 1])


@pytest.mark.parametrize(
    "bad, message",
    [
        (mem.Candidate(jnp.zeros(2), 0.0, 0), r"item is float32\[2\]"),
        (mem.Candidate(jnp.float32(0), 1, 0), r"confidence is int32\[\]"),
        (mem.Candidate(jnp.float32(0), jnp.zeros(2), 0), r"confidence is float32\[2\]"),
        (mem.Candidate(jnp.float32(0), 0.0, 0.5), r"frame is float32\[\]"),
    ],
)
def test_admit_names_mismatched_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        mem.admit(ring_of(), bad, policy=mem.always())


def test_admit_refuses_a_policy_that_returns_a_number():
    with pytest.raises(ValueError, match="the policy's answer is float32"):
        mem.admit(ring_of(), candidate(), policy=lambda r, c: jnp.float32(1))


def remembered(values, capacity=4):
    ring = mem.init(jnp.zeros(2), capacity=capacity)
    for i, value in enumerate(values):
        ring = mem.push(ring, jnp.array([value, 0.0]), stamp=i)
    return ring


@pytest.mark.parametrize(
    ("values", "x", "expected"),
    [([], 0.0, True), ([0.0, 5.0], 0.5, False), ([0.0, 5.0], 2.5, True)],
)
def test_novel_compares_with_every_stored_item(values, x, expected):
    candidate = mem.Candidate(jnp.array([x, 0.0]), 0.0, 9)
    ring = remembered(values)
    assert bool(jax.jit(mem.novel(-1.0))(ring, candidate)) == expected
    # Comparing with the latest item alone is not enough: 0.5 is far from 5.
    if values:
        assert bool(mem.dissimilar(-1.0)(ring, candidate))


@pytest.mark.parametrize(
    ("values", "slot"),
    [
        ([], 0),
        ([3.0], 1),
        ([0.0, 9.0, 5.0, 5.5], 2),  # of 5 and 5.5 the older
        ([0.0, 9.0, 5.0, 20.0, 5.5], 2),  # 5.5 replaced 0
    ],
)
def test_most_redundant_is_the_older_of_the_closest_pair(values, slot):
    assert int(jax.jit(mem.most_redundant)(remembered(values))) == slot


def test_replacing_the_most_redundant_keeps_dissimilar_items():
    ring = mem.init(jnp.zeros(2), capacity=3)
    stream = [0.0, 10.0, 10.5, 20.0, 20.1, 30.0]
    stored = []  # the same in plain Python: (stamp, value)
    for i, value in enumerate(stream):
        item = jnp.array([value, 0.0])
        ring = mem.push(ring, item, stamp=i, slot=mem.most_redundant(ring))
        if len(stored) == 3:
            pairs = [(a, b) for a in stored for b in stored if a[0] < b[0]]
            stored.remove(min(pairs, key=lambda p: abs(p[0][1] - p[1][1]))[0])
        stored.append((i, value))
    actual = sorted(zip(ring.stamp.tolist(), ring.slots[:, 0].tolist(), strict=True))
    np.testing.assert_allclose(actual, stored, atol=1e-5)
    assert [value for _, value in stored] == pytest.approx([0.0, 20.1, 30.0])
