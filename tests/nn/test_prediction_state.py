"""The prediction state: the identity when untrained, and its equations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax import memory as mem
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.features import Features
from dmnet_jax.nn.prediction_state import GAIN_SCALE, HORIZON, LEAST, TRUST_BIAS
from tests.support.drawn import drawn, quick_jit

KEY, SIZE, CLASSES = jax.random.key(0), (32, 64), 3
WITH = DMNet.tiny(CLASSES, local="none", global_memory=False, state=True)
PARTS = [(), ("jump",), ("age",), ("jump", "age")]
FRAMES = np.random.default_rng(0).integers(0, 256, (2, 4, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def variables():
    memory = WITH.init_memory(1, SIZE, KEY)
    frames = jax.ShapeDtypeStruct((1, 1, *SIZE, 3), jnp.uint8)
    return drawn(jax.eval_shape(WITH.init, KEY, memory, frames))


def with_fresh_state(variables):
    """The variables with the initial parameters of an untrained state."""
    fresh = dict(variables["params"])
    zero = ("trust_score", "gain")
    state_params = fresh["prediction_state"]
    fresh["prediction_state"] = {
        name: jax.tree.map(jnp.zeros_like, part) if name in zero else part
        for name, part in state_params.items()
    }
    return {**variables, "params": fresh}


def roll(model, variables, frames=FRAMES):
    memory = model.init_memory(len(frames), SIZE, KEY)
    return quick_jit(model.apply)(variables, memory, frames)


def test_an_untrained_state_changes_nothing(variables):
    memory = WITH.init_memory(1, SIZE, KEY)
    initial = quick_jit(WITH.init)(KEY, memory, FRAMES[:1, :1])
    state = initial["params"]["prediction_state"]
    assert not state["trust_score"]["kernel"].any() and state["gain"] == 0
    fresh = with_fresh_state(variables)
    _, alone = roll(WITH.single_frame(), fresh)
    memory, actual = roll(WITH, fresh)
    np.testing.assert_array_equal(actual.logits, alone.logits)
    for part in vars(memory.state).values():
        assert part.count.tolist() == [4, 4]
    # Each frame is trusted by 0.95: the age of a position is 0.05 (1 + 0.05 (1 + ...)).
    rest = float(jax.nn.sigmoid(-TRUST_BIAS))
    expected = rest + rest**2 + rest**3
    np.testing.assert_allclose(memory.state.age.value, expected, rtol=1e-4)


def test_no_position_is_distrusted_forever(variables):
    """Frames are trusted again in the end, however large the distrust."""
    state_params = dict(variables["params"]["prediction_state"])
    state_params["trust_score"] = jax.tree.map(
        jnp.zeros_like, state_params["trust_score"]
    )
    state_params["trust_fine"] = {
        **state_params["trust_fine"],
        "bias": state_params["trust_fine"]["bias"] + 1e3,
    }
    kernel = state_params["trust_score"]["kernel"] - 1e-2 / 32  # 1 / (1 + e^7) at first
    state_params["trust_score"] = {"kernel": kernel}
    modified = {
        **variables,
        "params": {**variables["params"], "prediction_state": state_params},
    }
    step = quick_jit(partial(WITH.apply, method="step"))
    memory, trusts = WITH.init_memory(1, SIZE, KEY), []
    for _ in range(60):
        memory, output = step(modified, memory, FRAMES[:1, 0])
        trusts.append(float(output.trust.mean()))
    first = trusts[1 : int(HORIZON)]
    assert max(first) < 0.02 and np.ptp(first) < 1e-4  # practically trusted
    later = trusts[int(HORIZON) + 2 :]
    assert np.all(np.diff(later) > 0) and later[-1] > 20 * first[0]


def test_each_part_can_be_disabled(variables):
    for parts in PARTS:
        model = WITH.clone(state_parts=parts)
        state_params = model.init_memory(1, SIZE, KEY).state
        fields = {"features": "jump", "age": "age"}
        for field, part in fields.items():
            present = bool(jax.tree.leaves(getattr(state_params, field).value))
            assert present == (part in parts), (parts, field)
        shapes = jax.eval_shape(
            model.init, KEY, model.init_memory(1, SIZE, KEY), FRAMES[:1, :1]
        )
        names = set(shapes["params"]["prediction_state"])
        assert ("trust_change" in names) == ("jump" in parts)


def test_trained_state_follows_its_equations(variables):
    memory, actual = roll(WITH, variables)
    _, alone = roll(WITH.single_frame(), variables)
    # The first frame of a video is not corrected: there is no earlier one.
    scale = np.abs(alone.logits).max()
    first = actual.logits[:, 0], alone.logits[:, 0]
    np.testing.assert_allclose(*first, atol=1e-5 * scale)
    assert np.abs(actual.logits[:, 1:] - alone.logits[:, 1:]).max() > 1e-3 * scale
    assert (np.abs(memory.state.probabilities.value.sum(-1) - 1) < 1e-5).all()
    state_params = variables["params"]["prediction_state"]
    assert alone.trust is None and (actual.trust[:, 0] == 1).all()
    assert actual.trust.shape == actual.logits.shape[:-1]
    encode = quick_jit(partial(WITH.apply, method="encode"))
    top = encode(variables, FRAMES.reshape(-1, *SIZE, 3)).top.reshape(2, 4, 1, 2, -1)
    state, carried = jax.nn.softmax(alone.logits[:, 0]), top[:, 0]
    age = np.zeros((2, 4, 8, 1))
    for t in range(1, 4):
        trust = actual.trust[:, t, ..., None]
        assert ((trust > 0) & (trust < 1)).all() and trust.std() > 0
        logits = alone.logits[:, t]
        before = np.log(np.maximum(state, LEAST))
        change = (1 - trust) * (before - jax.nn.log_softmax(logits))
        change = np.tanh(GAIN_SCALE * state_params["gain"]) * change
        expected = logits + change
        limit = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(actual.logits[:, t], expected, atol=limit)
        state = trust * jax.nn.softmax(logits) + (1 - trust) * state
        coarse = np.asarray(trust).reshape(2, 1, 8, 2, 8, 1).mean((2, 4))
        carried += coarse * (top[:, t] - carried)
        half = np.asarray(trust).reshape(2, 4, 2, 8, 2, 1).mean((2, 4))
        age = (1 - half) * (age + 1)
    np.testing.assert_allclose(memory.state.probabilities.value, state, atol=1e-4)
    limit = 1e-4 * np.abs(carried).max()
    np.testing.assert_allclose(memory.state.features.value, carried, atol=limit)
    np.testing.assert_allclose(memory.state.age.value, age, atol=1e-4)


def test_non_finite_and_missing_frames(variables):
    step = quick_jit(partial(WITH.apply, method="step"))
    memory, _ = step(variables, WITH.init_memory(2, SIZE, KEY), FRAMES[:, 0])
    broken = jnp.asarray(FRAMES[:, 1], jnp.float32).at[0, 3, 3].set(jnp.nan)
    active = jnp.array([True, False])
    after, _ = quick_jit(partial(WITH.apply, method="step"))(
        variables, memory, broken, active=active
    )
    jax.tree.map(np.testing.assert_array_equal, after.state, memory.state)
    forgotten = WITH.reset(after, jnp.array([mem.KEEP, mem.RESET_LOCAL]))
    for part in vars(forgotten.state).values():
        assert part.count.tolist() == [1, 0]


def test_gradients_reach_every_parameter_through_time(variables):
    fresh = with_fresh_state(variables)
    target = np.random.default_rng(1).integers(0, CLASSES, (2, 8, 16))
    maps = features(fresh)

    def loss(state_params):
        params = {**fresh["params"], "prediction_state": state_params}
        memory, total = WITH.init_memory(2, SIZE, KEY), 0.0
        for t in range(3):
            step = jax.tree.map(lambda x, t=t: x[:, t], maps)
            memory, output = WITH.apply(
                {**fresh, "params": params}, memory, step, method="update"
            )
            chosen = jax.nn.log_softmax(output.logits)
            total -= jnp.take_along_axis(chosen, target[..., None], -1).mean()
        return total

    state_params = fresh["params"]["prediction_state"]
    gradient = quick_jit(jax.grad(loss))(state_params)
    # Trust cannot move before the gain does.
    assert abs(gradient["gain"]) > 0
    moved = jax.tree.map(lambda x: x + 0.01, state_params)
    for path, x in jax.tree_util.tree_leaves_with_path(
        quick_jit(jax.grad(loss))(moved)
    ):
        assert np.isfinite(x).all() and np.abs(x).max() > 0, path


def features(variables):
    flat = FRAMES.reshape(-1, *SIZE, 3)
    actual = quick_jit(partial(WITH.apply, method="encode"))(variables, flat)
    return Features(*(x.reshape(2, 4, *x.shape[1:]) for x in jax.tree.leaves(actual)))
