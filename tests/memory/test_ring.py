import dataclasses
from collections import deque

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array
from jax.extend.core import jaxprs_in_params

from dmnet_jax import memory as mem

K = 4
T = 12
TRACES = st.lists(st.booleans(), min_size=T, max_size=T)


def item(i: Array | float) -> dict:
    """A pytree with leaves of several ranks and dtypes, different for every i."""
    i = jnp.asarray(i, jnp.float32)
    return {
        "map": i + jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
        "label": (7 * i).astype(jnp.int32),
        "pair": (i.astype(jnp.bfloat16)[None], i > 3),
    }


ITEMS = [jax.tree.map(np.asarray, item(i)) for i in range(T + 1)]
NOTHING = jax.tree.map(np.zeros_like, ITEMS[0])


def roll(wheres: Array) -> tuple[mem.RingBuffer, mem.RingBuffer]:
    """The final ring, and the ring after each of the T masked pushes."""

    def step(ring: mem.RingBuffer, x: tuple[Array, Array]):
        t, where = x
        ring = mem.push(ring, item(t + 1), stamp=10 + t, where=where)
        return ring, ring

    ring = mem.init(item(0), capacity=K)
    return jax.lax.scan(step, ring, (jnp.arange(T), wheres))


jitted_roll = jax.jit(roll)
jitted_vmap = jax.jit(jax.vmap(roll))


def models(wheres: list[bool]) -> list[tuple[int, dict[int, int]]]:
    """Per step, in plain Python: items ever pushed, and slot -> step of its item."""
    stored: deque[int] = deque(maxlen=K)
    pushed, history = 0, []
    for t, where in enumerate(wheres):
        if where:
            stored.append(t)
            pushed += 1
        first = pushed - len(stored)
        history.append((pushed, {(first + i) % K: s for i, s in enumerate(stored)}))
    return history


@settings(max_examples=30, deadline=None)
@given(TRACES)
def test_masked_pushes_equal_a_deque(wheres):
    _, rings = jitted_roll(jnp.array(wheres))
    rings = jax.tree.map(np.asarray, rings)
    for t, (pushed, slots) in enumerate(models(wheres)):
        ring = jax.tree.map(lambda x, t=t: x[t], rings)
        assert ring.count == pushed
        for s in range(K):
            actual = jax.tree.map(lambda x, s=s: x[s], ring.slots)
            expected = ITEMS[slots[s] + 1] if s in slots else NOTHING
            chex.assert_trees_all_equal(actual, expected)
            assert ring.stamp[s] == (10 + slots[s] if s in slots else mem.EMPTY)


@pytest.mark.parametrize("count", range(2 * K + 2))
def test_head_size_and_validity_follow_from_the_counter(count):
    ring = dataclasses.replace(mem.init({}, capacity=K), count=jnp.int32(count))
    assert ring.head == count % K
    assert ring.size == min(count, K)
    np.testing.assert_array_equal(ring.valid, [s < count for s in range(K)])


@settings(max_examples=15, deadline=None)
@given(TRACES, TRACES)
def test_vmap_equals_a_loop_over_videos(first, second):
    together, _ = jitted_vmap(jnp.array([first, second]))
    for b, wheres in enumerate((first, second)):
        alone, _ = jitted_roll(jnp.array(wheres))
        chex.assert_trees_all_equal(jax.tree.map(lambda x, b=b: x[b], together), alone)


def test_scan_is_a_loop_of_calls():
    wheres = [True, False, True, True, False, True, True, True, False, True, True, True]
    ring = mem.init(item(0), capacity=K)
    for t, where in enumerate(wheres):
        ring = mem.push(ring, item(t + 1), stamp=10 + t, where=where)
    chex.assert_trees_all_equal(ring, jitted_roll(jnp.array(wheres))[0])


def test_latest_is_the_last_push_and_zeros_before_it():
    ring = mem.init(item(0), capacity=K)
    chex.assert_trees_all_equal(mem.latest(ring), jax.tree.map(jnp.zeros_like, item(0)))
    for t in range(2 * K + 1):
        ring = mem.push(ring, item(t), stamp=t)
        ring = mem.push(ring, item(99), stamp=99, where=False)
        chex.assert_trees_all_equal(mem.latest(ring), item(t))


def test_properties_use_trailing_axes():
    wheres = jnp.array([[True] * T, [False] * T, [False] * (T - 3) + [True] * 3])
    with jax.numpy_rank_promotion("raise"):
        rings, _ = jitted_vmap(wheres)
        assert rings.capacity == K
        np.testing.assert_array_equal(rings.size, [K, 0, 3])
        np.testing.assert_array_equal(rings.head, [T % K, 0, 3])
        np.testing.assert_array_equal(rings.valid.sum(axis=-1), [K, 0, 3])
        assert rings.valid.shape == (3, K)


@pytest.mark.parametrize("capacity", [1, 3, 4])
def test_counter_is_reduced_before_it_overflows(capacity):
    ring = mem.init({}, capacity=capacity)
    start = 2**23 // capacity * capacity - 2
    ring = dataclasses.replace(ring, count=jnp.int32(start))
    push = jax.jit(mem.push)
    for i in range(2 * capacity + 4):
        assert ring.head == (start + i) % capacity
        assert ring.size == capacity
        assert ring.count >= capacity
        ring = push(ring, {}, stamp=i)
        assert ring.stamp[(start + i) % capacity] == i


def test_init_accepts_arrays_scalars_and_shapes():
    arrays = mem.init(item(5), capacity=3)
    shapes = mem.init(jax.eval_shape(item, 5.0), capacity=3)
    chex.assert_trees_all_equal(arrays, shapes)
    assert all(not np.any(x) for x in jax.tree.leaves(arrays.slots))
    numbers = mem.init({"a": 1.5, "b": np.zeros(2, np.int8)}, capacity=3)
    assert numbers.slots["a"].shape == (3,)
    assert numbers.slots["b"].dtype == jnp.int8


def test_ring_without_leaves_still_counts_and_stamps():
    ring = mem.init({}, capacity=2)
    for t in range(3):
        ring = mem.push(ring, {}, stamp=t)
    assert ring.count == 3
    assert mem.latest(ring) == {}
    np.testing.assert_array_equal(mem.read_last(ring, 2).stamp, [1, 2])


@pytest.mark.parametrize("capacity", [0, -3, 2**22 + 1])
def test_capacity_out_of_range(capacity):
    with pytest.raises(ValueError, match=f"capacity is {capacity}"):
        mem.init(jnp.zeros(1), capacity=capacity)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"a": jnp.zeros(3), "b": 0.0}, r"item\['a'\] is float32\[3\].*float32\[2\]"),
        ({"a": jnp.zeros(2, jnp.int32), "b": 0.0}, r"item\['a'\] is int32\[2\]"),
        ({"a": jnp.zeros(2)}, r"item\['b'\] is missing"),
        (
            {"a": jnp.zeros(2), "b": 0.0, "c": 0.0},
            r"item\['c'\] is float32\[\].*missing",
        ),
        ({"a": jnp.zeros((5, 2)), "b": 0.0}, r"item\['a'\] is float32\[5, 2\].*vmap"),
    ],
)
def test_push_names_the_mismatched_leaf(bad, message):
    ring = mem.init({"a": jnp.zeros(2), "b": 0.0}, capacity=2)
    with pytest.raises(ValueError, match=message):
        mem.push(ring, bad, stamp=0)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda r, x: mem.push(r, x, stamp=0), ring, bad)


def test_push_refuses_another_container_of_the_same_leaves():
    ring = mem.init((jnp.zeros(1),), capacity=2)
    with pytest.raises(ValueError, match="item is PyTreeDef"):
        mem.push(ring, [jnp.zeros(1)], stamp=0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"stamp": 0.5}, "stamp is float32"),
        ({"stamp": jnp.arange(2)}, r"stamp is int32\[2\]; it must be int \[\]"),
        ({"stamp": 0, "where": 1}, "where is int32"),
        ({"stamp": 0, "where": jnp.ones(3, bool)}, r"where is bool\[3\]"),
    ],
)
def test_push_refuses_bad_stamps_and_masks(arguments, message):
    with pytest.raises(ValueError, match=message):
        mem.push(mem.init(jnp.zeros(1), capacity=2), jnp.zeros(1), **arguments)


def test_batched_ring_error_suggests_vmap():
    rings = jax.vmap(lambda x: mem.init(x, capacity=2))(jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match="batched; call this under jax.vmap"):
        mem.push(rings, jnp.zeros(1), stamp=0)
    with pytest.raises(ValueError, match="batched"):
        mem.latest(rings)


def test_jit_traces_once():
    push = jax.jit(chex.assert_max_traces(mem.push, n=1))
    ring = mem.init(item(0), capacity=K)
    for t in range(3 * K):
        ring = push(ring, item(t), stamp=t, where=t % 3 > 0)
    assert ring.count == 2 * K


def test_a_fresh_ring_can_be_donated():
    push = jax.jit(mem.push, donate_argnums=0)
    ring = push(mem.init(jnp.zeros(2), capacity=1), jnp.ones(2), stamp=0)
    assert ring.count == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.uint8])
@pytest.mark.parametrize("form", ["call", "scan", "vmap", "vmap of scan"])
def test_push_is_compiled_in_place(form, dtype):
    x = jnp.zeros(256, dtype)
    ring = mem.init(x, capacity=1024)

    def call(ring, x, where):
        return mem.push(ring, x, stamp=3, where=where)

    def scan(ring, xs, wheres):
        return jax.lax.scan(lambda r, a: (call(r, *a), None), ring, (xs, wheres))[0]

    def stack(n, tree):
        return jax.tree.map(lambda x: jnp.stack([x] * n), tree)

    arguments = (ring, x, jnp.array(True))
    if "scan" in form:
        arguments = (ring, *stack(5, arguments[1:]))
    function = scan if "scan" in form else call
    if "vmap" in form:
        function, arguments = jax.vmap(function), stack(3, arguments)
    push = jax.jit(function, donate_argnums=0)
    size = sum(x.nbytes for x in jax.tree.leaves(arguments[0]))
    temporary = push.lower(*arguments).compile().memory_analysis()
    assert temporary is not None
    assert temporary.temp_size_in_bytes < 0.01 * size


def operations(jaxpr) -> list:
    """All equations, those of nested jaxprs included."""
    equations = []
    for equation in jaxpr.eqns:
        equations.append(equation)
        for inner in jaxprs_in_params(equation.params):
            equations += operations(inner)
    return equations


def test_push_has_no_branch_or_select_over_the_buffer():
    x = jnp.zeros((5, 7))
    ring = mem.init(x, capacity=K)
    jaxpr = jax.make_jaxpr(lambda r, x, w: mem.push(r, x, stamp=0, where=w))(
        ring, x, True
    )
    equations = operations(jaxpr.jaxpr)
    names = {equation.primitive.name for equation in equations}
    assert "scatter" in names
    assert not names & {"cond", "while"}
    selects = [e for e in equations if e.primitive.name == "select_n"]
    assert selects
    assert all(e.outvars[0].aval.shape == () for e in selects)


def test_gradients_reach_only_written_items():
    def loss(slots, x, where):
        ring = mem.RingBuffer(slots, jnp.arange(3), jnp.int32(4))  # head is slot 1
        ring = mem.push(ring, x, stamp=4, where=where)
        weight = jnp.array([2.0, 3.0, 5.0])[:, None]
        return jnp.sum(weight * ring.slots)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    slots, x = gradient(jnp.ones((3, 2)), jnp.ones(2), True)
    np.testing.assert_array_equal(slots[:, 0], [2, 0, 5])
    np.testing.assert_array_equal(x, [3, 3])
    slots, x = gradient(jnp.ones((3, 2)), jnp.ones(2), False)
    np.testing.assert_array_equal(slots[:, 0], [2, 3, 5])
    np.testing.assert_array_equal(x, [0, 0])
