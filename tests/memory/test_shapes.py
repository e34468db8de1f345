"""The annotated shapes of the memory library are correct and are enforced."""

import inspect

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from jax import Array

from dmnet_jax import memory
from dmnet_jax.memory import _dual, _policy, _read, _ring, _state
from tests.support import shapes

ROWS, WIDTH = 4, 3


@pytest.fixture
def checked(monkeypatch):
    """The functions of the library, with their arguments and results checked."""
    public = [getattr(memory, name) for name in memory.__all__]
    modules = _dual, _policy, _read, _ring, _state
    return shapes.typechecked(monkeypatch, modules, filter(inspect.isfunction, public))


def item(value: float) -> Array:
    return jnp.full((WIDTH,), value, jnp.float32)


def test_rings_and_reads_are_as_annotated(checked):
    ring = checked.init(item(0), capacity=ROWS)
    for stamp in range(ROWS + 1):
        ring = checked.push(ring, item(stamp), stamp=stamp, where=jnp.bool_(True))
    ring = checked.push(ring, item(9), stamp=9, slot=checked.most_redundant(ring))
    assert checked.latest(ring).shape == (WIDTH,)
    for readout in (
        checked.read_all(ring),
        checked.read_last(ring, 2),
        checked.read_uniform(ring, 2, jax.random.key(0)),
        checked.read_top_k(ring, 2, jnp.arange(float(ROWS))),
    ):
        whole = checked.stand_in(readout, item(1))
        actual = checked.attend(item(1), whole.items, whole.items, whole.mask)
        assert actual.shape == (WIDTH,)
    assert checked.read_window(ring, 2, item(1)).shape == (3, WIDTH)


def test_policies_and_memories_are_as_annotated(checked):
    policy = checked.any_of(
        checked.all_of(checked.confident(-0.5), checked.dissimilar(jnp.float32(-1))),
        checked.all_of(checked.novel(-1.0), checked.every(2), checked.always()),
    )
    trust = checked.confidence(jnp.full((2, 2, WIDTH), 1 / WIDTH))
    assert checked.similarity(item(1), item(2)) < 0
    ring = checked.init(item(0), capacity=ROWS)
    candidate = memory.Candidate(item(1), trust, jnp.int32(0))
    assert checked.admit(ring, candidate, policy=policy)[1]

    state = checked.blend(checked.init_state(item(0)), item(1), 0.5)
    dual = checked.init_dual(
        item(0), local_size=2, global_size=ROWS, key=jax.random.key(0), state=state
    )
    many, valid = jnp.ones((5, WIDTH)), jnp.ones(5, bool)
    dual = checked.prefill_local(checked.prefill(dual, many, valid), many, valid)
    dual, _ = checked.advance(dual, item(1), trust, policy=policy)
    admitted = checked.judge(dual, item(7), trust, policy=policy)
    dual, admitted = checked.remember(dual, item(7), admitted, where=True)
    assert admitted.dtype == bool and checked.read_key(dual).shape == ()
    assert checked.reset(dual, memory.RESET_ALL).frame == 0
    dual = jax.vmap(lambda key: dual.__class__(**vars(dual) | {"key": key}))(
        jax.random.split(jax.random.key(0), 2)
    )
    batched = jax.vmap(lambda one: checked.reset(one, memory.RESET_LOCAL))(dual)
    assert batched.local.valid.shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("attend", (item(1), jnp.ones((4, 3)), jnp.ones((4, 2, 3)), jnp.ones(4, bool))),
        ("attend", (item(1), jnp.ones((4, 3)), jnp.ones((4, 3)), jnp.ones(5, bool))),
        ("attend", (item(1), jnp.ones((4, 2)), jnp.ones((4, 3)), jnp.ones(4, bool))),
        ("confidence", (jnp.ones((2, 3)),)),
        ("confidence", (jnp.ones((2, 2, 3), jnp.int32),)),
        ("every", (jnp.ones(2, jnp.int32),)),
        ("confident", (jnp.ones(2),)),
    ],
)
def test_other_shapes_and_dtypes_are_refused(checked, name, arguments):
    with pytest.raises(jaxtyping.TypeCheckError):
        getattr(checked, name)(*arguments)
