"""The memory of masks: no effect when untrained, its equations, and what it is for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax import memory as mem
from dmnet_jax.models.clips import decode_frames
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.nn.mask_memory import CHANGE, FREQUENCIES, MaskMemory
from dmnet_jax.nn.prediction_state import GAIN_SCALE, MIN_PROBABILITY
from dmnet_jax.training.initial import RUNS_ONCE
from tests.support.random_variables import quick_jit, random_variables

KEY, SIZE, CLASSES, T = jax.random.key(0), (32, 64), 3, 4
WITH = DMNet.tiny(
    CLASSES,
    local="none",
    global_values="masks",
    key_channels=4,
    global_size=2,
    num_reads=2,
)
FRAMES = np.random.default_rng(0).integers(0, 256, (2, T, *SIZE, 3), np.uint8)
ADMIT_ALL = {
    "min_confidence": jnp.float32(-jnp.inf),
    "max_similarity": jnp.float32(jnp.inf),
}


@pytest.fixture(scope="module")
def variables():
    memory = WITH.init_memory(1, SIZE, KEY)
    frames = jax.ShapeDtypeStruct((1, 1, *SIZE, 3), jnp.uint8)
    shapes = jax.eval_shape(WITH.init, KEY, memory, frames)
    return {**random_variables(shapes), "thresholds": ADMIT_ALL}


def with_part(variables, **changed):
    part = {**variables["params"]["mask_memory"], **changed}
    return {**variables, "params": {**variables["params"], "mask_memory": part}}


def roll(model, variables, frames=FRAMES, jit=quick_jit):
    memory = model.init_memory(len(frames), SIZE, KEY)
    return jit(model.apply)(variables, memory, frames)


def test_an_untrained_memory_changes_nothing(variables):
    initial = quick_jit(WITH.init)(KEY, WITH.init_memory(1, SIZE, KEY), FRAMES[:1, :1])
    part = initial["params"]["mask_memory"]
    assert part["weight"] == 0 and part["null"] == 0
    assert not part["evidence"]["kernel"].any()
    fresh = with_part(variables, weight=jnp.float32(0))
    # The emitters that tests turn off fuse the common part of both programs alike.
    jit = partial(
        jax.jit, compiler_options=RUNS_ONCE | {"xla_cpu_use_fusion_emitters": True}
    )
    _, alone = roll(WITH.single_frame(), fresh, jit=jit)
    memory, output = roll(WITH, fresh, jit=jit)
    np.testing.assert_array_equal(output.logits, alone.logits)
    assert output.admitted.all() and (memory.global_.count == T).all()


def mean(x, n):
    """Averages blocks of n x n positions."""
    batch, h, w, channels = x.shape
    return x.reshape(batch, h // n, n, w // n, n, channels).mean((2, 4))


def test_a_trained_memory_follows_its_equations(variables):
    """The frame itself, two before it, a null slot and places, in plain NumPy."""
    weight = 0.4
    variables = with_part(variables, weight=np.float32(np.arctanh(weight) / GAIN_SCALE))
    memory, output = roll(WITH, variables)
    decode = quick_jit(partial(WITH.apply, method=decode_frames))
    flat = decode(variables, FRAMES.reshape(-1, *SIZE, 3))
    own = np.asarray(flat.logits, np.float64).reshape(2, T, 8, 16, CLASSES)
    fine = np.asarray(flat.fine, np.float64).reshape(2, T, 4, 8, -1)
    part = jax.tree.map(
        lambda x: np.asarray(x, np.float64), variables["params"]["mask_memory"]
    )

    def dense(name, x):
        return x @ part[name]["kernel"][0, 0]

    waves = np.zeros((2, 4, 0))
    for axis, n in enumerate((2, 4)):
        for frequency in FREQUENCIES:
            for wave in (np.sin, np.cos):
                line = wave(np.pi * frequency * (np.arange(n) + 0.5) / n)
                grid = line[:, None] if axis == 0 else line[None]
                column = np.broadcast_to(grid, (2, 4))[..., None]
                waves = np.concatenate([waves, column], -1)
    stored = []
    for t in range(T):
        coarse = mean(fine[:, t], 2)
        p = np.asarray(jax.nn.softmax(own[:, t]), np.float64)
        query = dense("query", coarse) + dense("query_place", waves)
        entropy = -(p * np.log(np.maximum(p, MIN_PROBABILITY))).sum(-1, keepdims=True)
        key = dense("key", coarse) + dense("key_place", waves)
        seen = np.concatenate([coarse, mean(p, 4), mean(entropy, 4)], -1)
        stored.append((key, dense("evidence", seen), mean(p, 4)))
        masses = [np.exp(GAIN_SCALE * part["null"]) * np.ones((2, 2, 4, 1))]
        prior = masses[0] / CLASSES
        for key, evidence, values in stored[-3:]:
            score = np.einsum("byxc,bvuc->byxvu", query, key) / np.sqrt(5)
            mass = np.exp(score + evidence[:, None, None, ..., 0])
            prior = prior + np.einsum("byxvu,bvuk->byxk", mass, values)
            masses.append(mass.sum((3, 4))[..., None])
        up = upsampled(upsampled(prior / sum(masses)))
        up = (1 - CHANGE) * up + CHANGE / CLASSES
        expected = own[:, t] + weight * np.log(CLASSES * up)
        limit = 2e-4 * np.abs(expected).max()
        np.testing.assert_allclose(output.logits[:, t], expected, atol=limit)
        assert np.abs(expected - own[:, t]).max() > 1e-2
    slots = memory.global_.slots
    for t in (2, 3):
        np.testing.assert_allclose(slots.value[:, t % 2], stored[t][2], atol=1e-4)
        scale = 1e-4 * np.abs(stored[t][0]).max()
        np.testing.assert_allclose(
            slots.key[:, t % 2, ..., :-1], stored[t][0], atol=scale
        )
    r = [mem.confidence(jax.nn.softmax(own[0, t])) for t in range(T)]
    np.testing.assert_allclose(output.confidence[0], r, atol=1e-4)


def upsampled(x):
    """Doubles a map with aligned corners."""
    for axis in (1, 2):
        n = x.shape[axis]
        place = np.linspace(0, n - 1, 2 * n)
        low = np.minimum(place.astype(int), max(0, n - 2))
        part = (place - low).reshape([-1 if a == axis else 1 for a in range(4)])
        after = np.take(x, np.minimum(low + 1, n - 1), axis)
        x = np.take(x, low, axis) * (1 - part) + after * part
    return x


def unit_memory(null=0.0):
    """A memory whose scores are scaled products of features, at full weight."""
    module = MaskMemory(8)
    fine, logits = jnp.zeros((1, 4, 4, 8)), jnp.zeros((1, 8, 8, 3))
    readout = mem.Readout(
        jax.tree.map(lambda x: jnp.zeros((1, 1, *x.shape)), module.shapes((32, 32), 3)),
        jnp.zeros((1, 1), bool),
        jnp.zeros((1, 1), jnp.int32),
    )
    stored = jax.tree.map(lambda x: x[:, 0], readout.items)
    params = module.init(KEY, readout, stored, fine, logits)["params"]
    shapes = jax.eval_shape(partial(module.init, method="store"), KEY, fine, logits)[
        "params"
    ]
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), {**params, **shapes})
    for name in ("query", "key"):
        params[name] = {"kernel": 10 * jnp.eye(8)[None, None]}
    params |= {"weight": jnp.float32(1), "null": jnp.float32(null)}
    return module, {"params": params}


def features(kinds):
    """One-hot features [1, 4, 4, 8], one kind for each quarter of the frame."""
    grid = np.repeat(np.repeat(np.reshape(kinds, (2, 2)), 2, 0), 2, 1)
    return jax.nn.one_hot(grid, 8)[None]


def logits_of(labels, scale=8.0):
    grid = np.repeat(np.repeat(np.reshape(labels, (2, 2)), 4, 0), 4, 1)
    return scale * jax.nn.one_hot(grid, 3)[None]


def read(module, variables, before, after):
    """Returns the logits of a frame after one admitted frame, each (fine, logits)."""
    item = module.apply(variables, *before, method="store")
    items = jax.tree.map(lambda x: x[:, None], item)
    readout = mem.Readout(items, jnp.ones((1, 1), bool), jnp.zeros((1, 1), jnp.int32))
    stored = module.apply(variables, *after, method="store")
    return module.apply(variables, readout, stored, *after)


def test_what_looks_the_same_gets_the_class_that_it_had():
    """An object of kind 5 that was class 2 moved to where nothing tells its class."""
    module, variables = unit_memory()
    before = features([5, 3, 3, 3]), logits_of([2, 0, 0, 0])
    open_logits = logits_of([1, 1, 1, 1]).at[..., 1].set(0)  # any class may be
    after = features([3, 3, 3, 5]), open_logits
    label = np.asarray(read(module, variables, before, after)[0].argmax(-1))
    assert (label[5:, 5:] == 2).all() and (label[:3, :] == 0).all()


def test_the_null_slot_keeps_a_frame_as_it_is():
    before = features([5, 3, 3, 3]), logits_of([2, 0, 0, 0])
    after = features([3, 3, 3, 5]), logits_of([1, 2, 1, 0], 1.0)
    module, variables = unit_memory(null=60 / GAIN_SCALE)
    same = read(module, variables, before, after)
    np.testing.assert_allclose(same, after[1], atol=1e-4)
    module, variables = unit_memory()
    assert np.abs(read(module, variables, before, after) - after[1]).max() > 1


def test_only_admitted_frames_are_stored_and_a_reset_forgets_them(variables):
    strict = {**ADMIT_ALL, "min_confidence": jnp.float32(1)}
    strict = {**variables, "thresholds": strict}
    memory, output = roll(WITH, strict)
    # The first frame is always admitted.
    assert output.admitted.tolist() == [[True, False, False, False]] * 2
    assert memory.global_.count.tolist() == [1, 1]
    step = quick_jit(partial(WITH.apply, method="step"))
    broken = jnp.asarray(FRAMES[:, 1], jnp.float32).at[0, 3, 3].set(jnp.nan)
    active = jnp.array([True, False])
    after, _ = step(variables, memory, broken, active=active)
    jax.tree.map(np.testing.assert_array_equal, after.global_, memory.global_)
    forgotten = WITH.reset(after, jnp.array([mem.RESET_LOCAL, mem.RESET_ALL]))
    assert forgotten.global_.count.tolist() == [1, 0]


def test_gradients_reach_all_parameters(variables):
    fresh = with_part(variables, weight=jnp.float32(0))
    target = np.random.default_rng(1).integers(0, CLASSES, (2, T, 8, 16))

    def loss(part):
        changed = with_part(fresh, **part)
        _, output = WITH.apply(changed, WITH.init_memory(2, SIZE, KEY), FRAMES)
        log_p = jax.nn.log_softmax(output.logits)
        return -jnp.take_along_axis(log_p, target[..., None], -1).mean()

    gradient = quick_jit(jax.grad(loss))
    part = fresh["params"]["mask_memory"]
    assert abs(gradient(part)["weight"]) > 0
    moved = jax.tree.map(lambda x: x + 0.01, part)
    for path, x in jax.tree_util.tree_leaves_with_path(gradient(moved)):
        assert np.isfinite(x).all() and np.abs(x).max() > 0, path
