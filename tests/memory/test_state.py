"""The gated state, compared with plain arithmetic."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmnet_jax import memory as mem

LIKE = {"a": jnp.zeros(3), "b": jnp.zeros((2, 3))}
blend = jax.jit(mem.blend)


def item(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.random(x.shape).astype(np.float32) for name, x in LIKE.items()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=6))
def test_state_is_the_documented_running_mean(frames):
    state, expected, count = mem.init_state(LIKE), None, 0
    for seed, (trust, present) in enumerate(frames):
        new = item(seed)
        state = blend(state, new, trust, where=present)
        if present:
            count += 1
            expected = (
                new
                if expected is None
                else {n: trust * new[n] + (1 - trust) * expected[n] for n in new}
            )
    assert int(state.count) == count
    zeros = {n: np.zeros(x.shape) for n, x in LIKE.items()}
    chex.assert_trees_all_close(state.value, expected or zeros, atol=1e-6)


def test_trust_is_per_element():
    state = blend(mem.init_state(LIKE), item(0), 1.0)
    trust = np.array([0.0, 0.5, 1.0], np.float32)
    after = blend(state, item(1), trust)
    for name in LIKE:
        expected = trust * item(1)[name] + (1 - trust) * item(0)[name]
        np.testing.assert_allclose(after.value[name], expected, atol=1e-6)


@pytest.mark.parametrize("broken", ["new", "trust"])
def test_non_finite_items_leave_the_state_unchanged(broken):
    state = blend(mem.init_state(LIKE), item(0), 1.0)
    new, trust = item(1), np.full(3, 0.5, np.float32)
    (new["a"] if broken == "new" else trust)[1] = np.nan
    chex.assert_trees_all_equal(blend(state, new, trust), state)


def test_mismatched_item_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"new\['b'\] is missing"):
        mem.blend(mem.init_state(LIKE), {"a": jnp.zeros(3)}, 1.0)


def test_dual_memory_carries_the_state_and_resets_it_with_the_local_memory():
    state = mem.init_state(LIKE)
    memory = mem.init_dual(
        jnp.zeros(2), local_size=1, global_size=1, key=jax.random.key(0), state=state
    )
    blended = mem.blend(memory.state, item(0), 1.0)
    memory, _ = mem.remember(memory, jnp.ones(2), jnp.bool_(True), state=blended)
    chex.assert_trees_all_equal(memory.state, blended)
    memory, _ = mem.remember(memory, jnp.ones(2), jnp.bool_(True))
    chex.assert_trees_all_equal(memory.state, blended)
    for what in (mem.RESET_LOCAL, mem.RESET_ALL):
        chex.assert_trees_all_equal(mem.reset(memory, what).state, state)
    chex.assert_trees_all_equal(mem.reset(memory, mem.KEEP).state, blended)
