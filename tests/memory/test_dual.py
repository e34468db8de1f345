import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from dmnet_jax import memory as mem

TAU, K, T = 3, 4, 11
POLICY = mem.all_of(mem.confident(-0.5), mem.dissimilar(-1.0))
BAD = [np.nan, np.inf, -np.inf]


def kept_of(x: Array) -> dict:
    """The stored form of a frame x: another structure and dtype than x."""
    return {"key": (2 * x).astype(jnp.float16), "value": jnp.stack([x, -x])}


def empty(key: Array | None = None) -> mem.DualMemory:
    x = jnp.float32(0)
    return mem.init_dual(
        x,
        local_size=TAU,
        global_size=K,
        key=jax.random.key(0) if key is None else key,
        stored=kept_of(x),
    )


def advance(memory: mem.DualMemory, x: Array, r: Array):
    return mem.advance(memory, x, r, policy=POLICY, stored=kept_of(x))


@jax.jit
def admit_with(memory: mem.DualMemory, x: Array, r: Array, stored: dict):
    return mem.advance(memory, x, r, policy=mem.always(), stored=stored)


jitted_advance = jax.jit(advance)


def roll(memory: mem.DualMemory, xs: Array, rs: Array):
    def step(memory: mem.DualMemory, row: tuple[Array, Array]):
        memory, admitted = advance(memory, *row)
        return memory, (admitted, memory.reference.count, memory.global_.count)

    return jax.lax.scan(step, memory, (xs, rs))


jitted_roll = jax.jit(roll)
jitted_vmap = jax.jit(jax.vmap(roll))
VALUES = st.one_of(st.integers(-3, 3).map(float), st.sampled_from(BAD))
SCORES = st.one_of(st.sampled_from([-0.75, -0.5, -0.25]), st.sampled_from(BAD))
XS = st.lists(VALUES, min_size=T, max_size=T)
RS = st.lists(SCORES, min_size=T, max_size=T)


def assert_holds(ring: mem.RingBuffer, frames: list[int], items: list) -> None:
    """The ring's history ends with these items, stamped with these frames."""
    size = min(ring.capacity, len(frames))
    assert ring.count == len(frames)
    last = jax.tree.map(np.asarray, mem.read_last(ring, ring.capacity))
    rows = slice(ring.capacity - size, None)
    np.testing.assert_array_equal(last.stamp[rows], frames[len(frames) - size :])
    for i, item in zip(range(size), items[len(items) - size :], strict=True):
        row = jax.tree.map(lambda x, i=i: x[rows][i], last.items)
        chex.assert_trees_all_equal(row, item)


@settings(max_examples=40, deadline=None)
@given(XS, RS)
def test_scan_over_a_stream_equals_a_plain_loop(xs, rs):
    local, chosen = [], []
    for t, (x, r) in enumerate(zip(xs, rs, strict=True)):
        if not np.isfinite(x):
            continue
        local.append(t)
        novel = not chosen or (r > -0.5 and abs(x - xs[chosen[-1]]) > 1.0)
        if np.isfinite(r) and novel:
            chosen.append(t)
    memory, (admitted, references, globals_) = jitted_roll(
        empty(), jnp.array(xs), jnp.array(rs)
    )
    np.testing.assert_array_equal(admitted, [t in chosen for t in range(T)])
    np.testing.assert_array_equal(references, globals_)
    items = np.array(xs, np.float32)
    stored = jax.vmap(kept_of)(items)
    assert memory.frame == T
    assert_holds(memory.local, local, [items[t] for t in local])
    assert_holds(memory.reference, chosen, [items[t] for t in chosen])
    assert_holds(
        memory.global_,
        chosen,
        [jax.tree.map(lambda x, t=t: x[t], stored) for t in chosen],
    )


@settings(max_examples=15, deadline=None)
@given(st.tuples(XS, XS), st.tuples(RS, RS))
def test_vmap_equals_a_loop_over_videos(xs, rs):
    keys = jax.random.split(jax.random.key(1), 2)
    together = jitted_vmap(jax.vmap(empty)(keys), jnp.array(xs), jnp.array(rs))
    for b in range(2):
        alone = jitted_roll(empty(keys[b]), jnp.array(xs[b]), jnp.array(rs[b]))
        chex.assert_trees_all_equal(jax.tree.map(lambda x, b=b: x[b], together), alone)


def test_scan_equals_donated_calls_and_traces_once():
    step = jax.jit(chex.assert_max_traces(advance, n=1), donate_argnums=0)
    xs = jnp.array([0.0, 0.5, 3.0, np.nan, 3.1, -2.0, 0.0, 9.0, 9.0, 4.0, 1.0])
    rs = jnp.array([-9.0, 0.0, -0.1, 0.0, 0.0, -0.7, -0.2, np.inf, 0.0, -0.1, -0.1])
    scanned, (expected, _, _) = jitted_roll(empty(), xs, rs)
    memory, admitted = empty(), []
    for x, r in zip(xs, rs, strict=True):
        memory, took = step(memory, x, r)
        admitted.append(bool(took))
    chex.assert_trees_all_equal(memory, scanned)
    np.testing.assert_array_equal(admitted, expected)
    assert 2 < sum(admitted) < T


def test_one_step_of_several_videos_is_in_place():
    item = jnp.zeros((16, 16))
    memory = jax.vmap(
        lambda key: mem.init_dual(item, local_size=500, global_size=500, key=key)
    )(jax.random.split(jax.random.key(0), 2))

    def step(memory: mem.DualMemory, x: Array, r: Array):
        return mem.advance(memory, x, r, policy=POLICY)

    arguments = (memory, jnp.zeros((2, 16, 16)), jnp.zeros(2))
    compiled = jax.jit(jax.vmap(step), donate_argnums=0).lower(*arguments).compile()
    size = memory.local.slots.nbytes + memory.global_.slots.nbytes
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 0.01 * size


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("where", ["item", "stored", "confidence"])
def test_non_finite_values_are_never_admitted(where, bad, first):
    memory = empty()
    if not first:
        memory, _ = jitted_advance(memory, jnp.float32(-8), jnp.float32(0))
    x = jnp.float32(bad if where == "item" else 1)
    stored = kept_of(jnp.float32(1))
    if where == "stored":
        stored["value"] = stored["value"].at[1].set(bad)
    r = bad if where == "confidence" else 0.0
    after, admitted = admit_with(memory, x, jnp.float32(r), stored)
    assert not admitted
    chex.assert_trees_all_equal(after.reference, memory.reference)
    chex.assert_trees_all_equal(after.global_, memory.global_)
    assert after.local.count == memory.local.count + (where != "item")
    assert after.frame == memory.frame + 1


def test_values_that_overflow_the_storage_dtype_are_refused():
    memory, admitted = advance(empty(), jnp.float32(1e5), jnp.float32(0))
    assert not admitted  # 2e5 is an infinite float16
    assert memory.local.count == 1
    assert memory.reference.count == memory.global_.count == 0


def test_stored_defaults_to_the_item_and_may_be_empty():
    x = jnp.float32(0)
    for stored in (None, {}):
        memory = mem.init_dual(
            x, local_size=1, global_size=2, key=jax.random.key(0), stored=stored
        )
        for t in (3.0, 5.0):
            memory, _ = mem.advance(
                memory, jnp.float32(t), 0.0, policy=mem.always(), stored=stored
            )
        items_kept = mem.read_last(memory.global_, 2)
        np.testing.assert_array_equal(items_kept.stamp, [0, 1])
        if stored is None:
            np.testing.assert_array_equal(items_kept.items, [3, 5])
        else:
            assert items_kept.items == {}


ROWS = st.lists(st.tuples(VALUES, st.booleans()), min_size=5, max_size=5)
prefill = jax.jit(
    lambda memory, xs, valid: mem.prefill(
        memory, xs, valid, stored=jax.vmap(kept_of)(xs)
    )
)
prefill_local = jax.jit(mem.prefill_local)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_prefill_equals_a_loop_of_unconditional_admissions(rows):
    xs, valid = (jnp.array(column) for column in zip(*rows, strict=True))
    memory = prefill(empty(), xs, valid)
    expected = empty()
    for x, is_frame in rows:
        if is_frame:
            x = jnp.float32(x)
            expected, _ = admit_with(expected, x, jnp.float32(0), kept_of(x))
    for field in ("reference", "global_", "frame", "key"):
        chex.assert_trees_all_equal(getattr(memory, field), getattr(expected, field))
    chex.assert_trees_all_equal(memory.local, empty().local)
    assert memory.reference.count == memory.global_.count
    stamps = mem.read_all(memory.global_)
    stamps = stamps.stamp[stamps.mask].tolist()
    assert len(set(stamps)) == len(stamps)
    assert all(0 <= s < memory.frame for s in stamps)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_prefill_local_equals_a_loop_of_refused_frames(rows):
    start = prefill(empty(), jnp.array([2.0, -2.0]), jnp.array([True, True]))
    xs, valid = (jnp.array(column) for column in zip(*rows, strict=True))
    memory = prefill_local(start, xs, valid)
    expected = start
    for x, is_frame in rows:
        if is_frame:
            expected, admitted = jitted_advance(
                expected, jnp.float32(x), jnp.float32(-9)
            )
            assert not admitted
    chex.assert_trees_all_equal(memory, expected)


def test_prefill_with_no_rows_changes_nothing():
    none = jnp.zeros(0)
    chex.assert_trees_all_equal(prefill(empty(), none, none > 0), empty())
    chex.assert_trees_all_equal(prefill_local(empty(), none, none > 0), empty())


def test_gradients_reach_prefilled_rows_and_are_finite():
    def loss(xs: Array) -> Array:
        stored = jax.vmap(lambda x: {"value": x**2})(xs)
        memory = mem.init_dual(
            xs[0],
            local_size=2,
            global_size=3,
            key=jax.random.key(0),
            stored={"value": xs[0]},
        )
        valid = jnp.array([True, True, False])
        memory = mem.prefill(memory, xs, valid, stored=stored)
        memory = mem.prefill_local(memory, xs, valid)
        memory, _ = mem.advance(
            memory, xs[1], 0.0, policy=POLICY, stored={"value": xs[1]}
        )
        read = mem.read_uniform(memory.global_, 3, mem.read_key(memory))
        return jnp.sum(read.items["value"]) + jnp.sum(mem.latest(memory.local))

    # The advanced frame repeats the reference item, where a distance has no gradient.
    # Similarity 0 is refused, so `global_` reads 2**2 + 3**2 and `local` ends in 3.
    gradient = jax.jit(jax.grad(loss))(jnp.array([2.0, 3.0, 5.0]))
    np.testing.assert_array_equal(gradient, [4, 6 + 1, 0])


def draw(memory: mem.DualMemory) -> float:
    return float(jax.random.uniform(mem.read_key(memory)))


def test_read_keys_differ_by_frame_and_video_and_repeat():
    def keys(seed: int) -> list[float]:
        memory, draws = empty(jax.random.key(seed)), []
        for t in range(4):
            draws.append(draw(memory))
            memory, _ = advance(memory, jnp.float32(t), jnp.float32(0))
        return draws

    assert keys(0) == keys(0)
    assert len({*keys(0), *keys(1)}) == 8


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_donating_the_memory_does_not_delete_the_callers_key(make):
    key = make(3)
    memory = empty(key)
    assert memory.key is not key
    assert draw(memory) != float(jax.random.uniform(key))
    jax.jit(lambda m: dataclasses.replace(m, frame=m.frame + 1), donate_argnums=0)(
        memory
    )
    assert draw(empty(key)) == draw(empty(make(3)))


def test_reads_still_work_after_the_frame_index_wraps():
    memory = dataclasses.replace(empty(), frame=jnp.int32(2**31 - 1))
    memory, admitted = advance(memory, jnp.float32(1), jnp.float32(0))
    assert admitted
    assert memory.frame == -(2**31)
    before = draw(memory)
    memory, admitted = advance(memory, jnp.float32(5), jnp.float32(0))
    assert admitted and draw(memory) != before
    last = mem.read_last(memory.global_, 2)
    assert last.mask.all()
    np.testing.assert_array_equal(last.stamp, [2**31 - 1, -(2**31)])


def test_mismatched_arguments_are_named_in_the_error():
    memory, x = empty(), jnp.float32(0)
    stored = kept_of(x)
    with pytest.raises(ValueError, match=r"stored\['key'\] is missing"):
        mem.advance(memory, x, 0.0, policy=POLICY, stored={"value": stored["value"]})
    with pytest.raises(ValueError, match=r"stored\['key'\] is missing"):
        mem.advance(memory, x, 0.0, policy=POLICY)
    with pytest.raises(ValueError, match=r"item is float32\[2\]"):
        mem.advance(memory, jnp.zeros(2), 0.0, policy=POLICY, stored=stored)
    with pytest.raises(ValueError, match="confidence is"):
        mem.advance(memory, x, jnp.zeros(2), policy=POLICY, stored=stored)
    rows, valid = jnp.zeros(3), jnp.ones(3, bool)
    with pytest.raises(ValueError, match=r"stored\['key'\] is missing"):
        mem.prefill(memory, rows, valid)
    with pytest.raises(ValueError, match=r"recent has shape \[2\].* must have 3 rows"):
        mem.prefill_local(memory, rows[:2], valid)
    with pytest.raises(ValueError, match=r"valid is float32\[3\]; it must be bool"):
        mem.prefill_local(memory, rows, jnp.ones(3))
    with pytest.raises(ValueError, match="capacity is 0"):
        mem.init_dual(x, local_size=0, global_size=1, key=jax.random.key(0))


@pytest.mark.parametrize("what", [mem.KEEP, mem.RESET_LOCAL, mem.RESET_ALL])
def test_reset_clears_the_selected_memories(what):
    memory = empty()
    for i in range(5):
        x = jnp.float32(i)
        memory, _ = admit_with(memory, x, jnp.float32(0), kept_of(x))
    after = jax.jit(mem.reset)(memory, what)
    left = [int(ring.size) for ring in (after.local, after.reference, after.global_)]
    counts = {mem.KEEP: [TAU, 1, K], mem.RESET_LOCAL: [0, 1, K]}
    assert left == counts.get(what, [0, 0, 0])
    assert int(after.frame) == (0 if what == mem.RESET_ALL else 5)
    if what == mem.RESET_ALL:
        chex.assert_trees_all_equal(
            mem.read_last(after.local, 1).mask, jnp.array([False])
        )
        # Later steps equal those of a new memory.
        fresh, again = empty(), after
        for i in range(7, 9):
            fresh, one = jitted_advance(fresh, jnp.float32(i), jnp.float32(0))
            again, other = jitted_advance(again, jnp.float32(i), jnp.float32(0))
            assert bool(one) == bool(other)
        for name in ("local", "reference", "global_"):
            chex.assert_trees_all_equal(
                getattr(fresh, name).stamp, getattr(again, name).stamp
            )


def test_reset_of_a_batch_equals_reset_of_each_stream():
    memories = jax.vmap(lambda key: empty())(jnp.arange(3))
    x, zero = jnp.float32(1), jnp.float32(0)
    memories, _ = jax.vmap(lambda m: admit_with(m, x, zero, kept_of(x)))(memories)
    what = jnp.array([mem.KEEP, mem.RESET_LOCAL, mem.RESET_ALL], jnp.uint8)
    after = jax.vmap(mem.reset)(memories, what)
    np.testing.assert_array_equal(after.local.size, [1, 0, 0])
    np.testing.assert_array_equal(after.global_.size, [1, 1, 0])
