"""The folded network gives the outputs of the trained one on every frame."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax import memory as mem
from dmnet_jax.complexity import stream_complexity
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.features import Features
from tests.support import tiny_run

KEY = jax.random.key(3)
VARIANTS = {
    "ela": {},
    "ela shared": {"share_key_value": True},
    "blstm": {"local": "blstm"},
    "clstm alone": {"local": "clstm", "global_memory": False},
    "nl shared": {"local": "nl", "share_key_value": True},
    "none": {"local": "none"},
    "narrow": {"width": 64, "value_channels": 32},
}


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with tiny_run.shallow():
        yield


def drawn(model, seed=0):
    """Random variables of the model, with norms that are not the identity."""
    frames = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.uint8)
    memory = jax.eval_shape(lambda: model.init_memory(1, (64, 64), KEY))
    shapes = jax.eval_shape(model.init, KEY, memory, frames)
    rng = np.random.default_rng(seed)

    def leaf(path, x):
        name = path[-1].key
        if name == "kernel":
            return rng.standard_normal(x.shape) / np.prod(x.shape[:-1]) ** 0.5
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, x.shape)
        return 0.1 * rng.standard_normal(x.shape)

    variables = jax.tree.map(np.float32, jax.tree_util.tree_map_with_path(leaf, shapes))
    everything = {"min_confidence": -np.inf, "max_similarity": np.inf}
    return {**variables, "thresholds": jax.tree.map(np.float32, everything)}


def features_of(index, streams, size, width=256):
    rng = np.random.default_rng(index)
    maps = ((8, 24), (4, 32), (2, 64), (2, 96), (1, width), (2, 5))
    h, w = size[0] // 32, size[1] // 32
    return Features(
        *(
            rng.uniform(0, 2, (streams, n * h, n * w, c)).astype(np.float32)
            for n, c in maps
        )
    )


def assert_close(actual, expected):
    limit = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)


def assert_same_labels(actual, expected):
    best = np.sort(expected, -1)
    clear = best[..., -1] - best[..., -2] > 2e-4 * np.abs(expected).max()
    assert clear.mean() > 0.9
    assert (actual.argmax(-1) == expected.argmax(-1))[clear].all()


@functools.cache
def programs(name):
    """The model, its update and the folded update; variables are arguments."""
    model = DMNet.tiny(
        num_classes=3, local_size=2, num_reads=2, global_size=3, **VARIANTS[name]
    )
    networks = model, model.clone(is_folded=True)
    return model, *(jax.jit(partial(m.apply, method=DMNet.update)) for m in networks)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_after_wrap_around_and_reset(name):
    size = (32, 64)
    model, trained, step = programs(name)
    variables = drawn(model)
    _, weights = model.folded(variables)

    theirs = ours = model.init_memory(1, size, KEY)
    for index in range(8):
        if index == 6:
            theirs = model.init_memory(1, size, KEY)
            ours = model.reset(ours, np.full(1, mem.RESET_ALL))
        features = features_of(index, 1, size, model.width)
        theirs, expected = trained(variables, theirs, features)
        ours, actual = step(weights, ours, features)
        assert_close(actual.logits, expected.logits)
        assert_same_labels(np.asarray(actual.logits), np.asarray(expected.logits))
        for field in ("confidence", "similarity"):
            np.testing.assert_allclose(
                getattr(actual, field), getattr(expected, field), rtol=1e-4
            )
        assert actual.admitted == expected.admitted
    assert int(theirs.global_.count[0]) == int(ours.global_.count[0]) == 2


@pytest.mark.parametrize(
    ("encoder", "size"), [("keras", (64, 96)), ("torch", (96, 64))]
)
def test_encoder_with_its_norms_folded(encoder, size):
    model = DMNet.tiny(num_classes=3, encoder=encoder)
    variables = drawn(model)
    folded, weights = model.folded(variables)
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    expected = jax.jit(partial(model.apply, method=DMNet.encode))(variables, frames)
    actual = jax.jit(partial(folded.apply, method=DMNet.encode))(weights, frames)
    jax.tree.map(assert_close, actual, expected)


def test_thresholds_decide_as_in_training():
    """A rejected frame computes no key and value, and does not change the memory."""
    size = (32, 64)
    model, trained, step = programs("ela")
    variables = drawn(model)
    variables["thresholds"]["max_similarity"] = np.float32(-20.0)
    _, weights = model.folded(variables)
    theirs = ours = model.init_memory(1, size, KEY)
    decisions = []
    for index in (0, 0, 1, 1, 0):
        features = features_of(index, 1, size)
        features = jax.tree.map(lambda x, i=index: x * (1 + i), features)
        theirs, expected = trained(variables, theirs, features)
        ours, actual = step(weights, ours, features)
        assert_close(actual.logits, expected.logits)
        decisions.append((bool(actual.admitted[0]), bool(expected.admitted[0])))
    assert all(ours == theirs for ours, theirs in decisions)
    assert {ours for ours, _ in decisions} == {True, False}
    for name in ("key", "value"):
        ring = getattr(ours.global_.slots, name)
        assert_close(ring, np.asarray(getattr(theirs.global_.slots, name)))


def test_local_reset_clears_only_the_window():
    model = DMNet.tiny(num_classes=3, local_size=2, num_reads=2, global_size=3)
    memory = model.init_memory(3, (32, 32), KEY)
    memory = jax.tree.map(
        lambda x: x + 1, dataclasses.replace(memory, key=memory.key * 0)
    )
    after = model.reset(memory, np.array([0, mem.RESET_LOCAL, mem.RESET_ALL]))
    assert after.local.count.tolist() == [1, 0, 0]
    assert after.reference.count.tolist() == after.global_.count.tolist() == [1, 1, 0]
    assert after.frame.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("switches", "giga"),
    [
        # The network of the release; counted as its authors do, the number is 11.54.
        ({"local": "blstm"}, 9.880),
        ({"local": "ela"}, 10.041),
        ({"local": "none", "global_memory": False}, 9.151),
    ],
)
def test_operations_of_a_frame(switches, giga):
    model = DMNet(num_classes=8, **switches)
    counted = stream_complexity(model, (512, 640))
    assert counted.norm == 0
    assert sum(counted) / 1e9 == pytest.approx(giga, abs=1e-3)
