"""The prediction state: no effect when untrained, and its equations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax import memory as mem
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.features import Features
from dmnet_jax.nn import looks as looks_module
from dmnet_jax.nn import prediction_state
from dmnet_jax.nn.appearance import appearance
from dmnet_jax.nn.looks import PACE, init_looks, remember
from dmnet_jax.nn.prediction_state import (
    APPEARANCE_SCALE,
    AREAS_SCALE,
    GAIN_SCALE,
    HORIZON,
    MIN_PROBABILITY,
    TRUST_BIAS,
    PredictionState,
)
from dmnet_jax.training.initial import RUNS_ONCE
from tests.support.random_variables import quick_jit, random_variables

KEY, SIZE, CLASSES = jax.random.key(0), (32, 64), 3
PARTS = ("appearance", "age")
DEFAULT = prediction_state.PARTS
CHOICES = [(), *((part,) for part in DEFAULT), PARTS, DEFAULT]
ONLY_STATE = {"local": "none", "global_memory": False, "state": True}
WITH = DMNet.tiny(CLASSES, **ONLY_STATE, state_parts=PARTS)
FRAMES = np.random.default_rng(0).integers(0, 256, (2, 4, *SIZE, 3), np.uint8)


def variables_of(model):
    memory = model.init_memory(1, SIZE, KEY)
    frames = jax.ShapeDtypeStruct((1, 1, *SIZE, 3), jnp.uint8)
    return random_variables(jax.eval_shape(model.init, KEY, memory, frames))


@pytest.fixture(scope="module")
def variables():
    return variables_of(WITH)


def with_fresh_state(variables):
    """Returns the variables with an untrained prediction state."""
    params = dict(variables["params"])
    zero = ("trust_score", "appearance_weight", "areas_weight", "gain")
    params["prediction_state"] = {
        name: jax.tree.map(jnp.zeros_like, part) if name in zero else part
        for name, part in params["prediction_state"].items()
    }
    return {**variables, "params": params}


def gated(state):
    """Returns the gated states of a carry."""
    return jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, mem.GatedState))


def roll(model, variables, frames=FRAMES, jit=quick_jit):
    memory = model.init_memory(len(frames), SIZE, KEY)
    return jit(model.apply)(variables, memory, frames)


@pytest.mark.parametrize("parts", [DEFAULT, PARTS])
def test_an_untrained_state_changes_nothing(parts):
    model = WITH.clone(state_parts=parts)
    memory = model.init_memory(1, SIZE, KEY)
    initial = quick_jit(model.init)(KEY, memory, FRAMES[:1, :1])
    state = initial["params"]["prediction_state"]
    assert not state["trust_score"]["kernel"].any() and state["gain"] == 0
    for part in {"appearance", "areas"} & set(parts):
        assert not state[f"{part}_weight"]["kernel"].any()
    fresh = with_fresh_state(variables_of(model))
    # The emitters that tests turn off fuse the common part of both programs alike.
    emitters = {"xla_cpu_use_fusion_emitters": True}
    jit = partial(jax.jit, compiler_options=RUNS_ONCE | emitters)
    _, alone = roll(WITH.single_frame(), fresh, jit=jit)
    memory, output = roll(model, fresh, jit=jit)
    np.testing.assert_array_equal(output.logits, alone.logits)
    for part in gated(memory.state):
        if jax.tree.leaves(part.value):
            assert part.count.tolist() == [4, 4]
    # Each frame is trusted by 0.95, so the age is 0.05 (1 + 0.05 (1 + ...)).
    doubt = float(jax.nn.sigmoid(-TRUST_BIAS))
    expected = doubt + doubt**2 + doubt**3
    np.testing.assert_allclose(memory.state.age.value, expected, rtol=1e-4)


def test_no_position_is_distrusted_forever(variables):
    """Trust grows even if the parameters always report a disturbance."""
    params = dict(variables["params"]["prediction_state"])
    for name in ("trust_score", "appearance_weight"):
        params[name] = jax.tree.map(jnp.zeros_like, params[name])
    params["trust_doubt"] = {
        **params["trust_doubt"],
        "bias": params["trust_doubt"]["bias"] + 1e3,
    }
    kernel = params["trust_score"]["kernel"] - 1e-2 / 32  # trust 1 / (1 + e^7) at first
    params["trust_score"] = {"kernel": kernel}
    variables = {
        **variables,
        "params": {**variables["params"], "prediction_state": params},
    }
    step = quick_jit(partial(WITH.apply, method="step"))
    memory, trusts = WITH.init_memory(1, SIZE, KEY), []
    for _ in range(60):
        memory, output = step(variables, memory, FRAMES[:1, 0])
        trusts.append(float(output.trust.mean()))
    first = trusts[1 : int(HORIZON)]
    assert (
        max(first) < 0.02 and np.ptp(first) < 1e-4
    )  # the state still counts as recent
    later = trusts[int(HORIZON) + 2 :]
    assert np.all(np.diff(later[:10]) > 0) and later[-1] > 20 * first[0]
    # It ends where the age stays the same: age = (1 - trust) (age + 1).
    age = float(memory.state.age.value.mean())
    np.testing.assert_allclose(trusts[-1], 1 / (age + 1), rtol=1e-3)
    np.testing.assert_allclose(trusts[-10:], trusts[-1], rtol=1e-3)


def test_each_part_can_be_left_out(variables):
    for parts in CHOICES:
        model = WITH.clone(state_parts=parts)
        state = model.init_memory(1, SIZE, KEY).state
        assert bool(jax.tree.leaves(state.age.value)) == ("age" in parts)
        assert bool(jax.tree.leaves(state.looks)) == ("appearance" in parts)
        shapes = jax.eval_shape(
            model.init, KEY, model.init_memory(1, SIZE, KEY), FRAMES[:1, :1]
        )
        names = set(shapes["params"]["prediction_state"])
        for part in ("appearance", "areas"):
            assert (f"{part}_weight" in names) == (part in parts)


def test_a_trained_state_follows_its_equations():
    model = WITH.clone(state_parts=DEFAULT)
    variables = variables_of(model)
    variables["params"]["prediction_state"]["gain"] = jnp.float32(0.05)
    memory, output = roll(model, variables)
    _, alone = roll(WITH.single_frame(), variables)
    # The first frame of a video is not corrected.
    scale = np.abs(alone.logits).max()
    first = output.logits[:, 0], alone.logits[:, 0]
    np.testing.assert_allclose(*first, atol=1e-5 * scale)
    assert np.abs(output.logits[:, 1:] - alone.logits[:, 1:]).max() > 1e-3 * scale
    assert (np.abs(memory.state.probabilities.value.sum(-1) - 1) < 1e-5).all()
    gain = variables["params"]["prediction_state"]["gain"]
    assert alone.trust is None and (output.trust[:, 0] == 1).all()
    assert output.trust.shape == output.logits.shape[:-1]
    encode = quick_jit(partial(WITH.apply, method="encode"))
    maps = encode(variables, FRAMES.reshape(-1, *SIZE, 3))
    looks = maps.appearance.reshape(2, 4, 2, 4, -1)
    state = jax.nn.softmax(alone.logits[:, 0])
    age = np.zeros((2, 4, 8, 1))
    active = jnp.ones(2, bool)
    expected_looks = jax.tree.map(lambda x: jnp.stack([x, x]), init_looks(SIZE))
    for t in range(4):
        trust = output.trust[:, t, ..., None]
        cell = np.asarray(trust).reshape(2, 2, 4, 4, 4, 1).mean((2, 4))
        elapsed = age.reshape(2, 2, 2, 4, 2, 1).mean((2, 4)) + 1
        expected_looks = remember(expected_looks, looks[:, t], cell, elapsed, active)
        if t == 0:
            continue
        assert ((trust > 0) & (trust < 1)).all() and trust.std() > 0
        logits = alone.logits[:, t]
        before = np.log(np.maximum(state, MIN_PROBABILITY))
        change = (1 - trust) * (before - jax.nn.log_softmax(logits))
        change = np.tanh(GAIN_SCALE * gain) * change
        expected = logits + change
        limit = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(output.logits[:, t], expected, atol=limit)
        state = trust * jax.nn.softmax(logits) + (1 - trust) * state
        half = np.asarray(trust).reshape(2, 4, 2, 8, 2, 1).mean((2, 4))
        age = (1 - half) * (age + 1)
    np.testing.assert_allclose(memory.state.probabilities.value, state, atol=1e-4)
    np.testing.assert_allclose(memory.state.age.value, age, atol=1e-4)
    for got, want in zip(
        *(jax.tree.leaves(x) for x in (memory.state.looks, expected_looks)), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_array_equal(memory.state.looks.previous.value, looks[:, 3])


def test_inactive_and_not_finite_frames_do_not_change_the_state(variables):
    step = quick_jit(partial(WITH.apply, method="step"))
    memory, _ = step(variables, WITH.init_memory(2, SIZE, KEY), FRAMES[:, 0])
    broken = jnp.asarray(FRAMES[:, 1], jnp.float32).at[0, 3, 3].set(jnp.nan)
    active = jnp.array([True, False])
    after, _ = quick_jit(partial(WITH.apply, method="step"))(
        variables, memory, broken, active=active
    )
    jax.tree.map(np.testing.assert_array_equal, after.state, memory.state)
    forgotten = WITH.reset(after, jnp.array([mem.KEEP, mem.RESET_LOCAL]))
    for part in gated(forgotten.state):
        assert part.count.tolist() == [1, 0]


@pytest.mark.parametrize("parts", [DEFAULT, PARTS])
def test_gradients_reach_all_parameters_through_time(parts):
    model = WITH.clone(state_parts=parts)
    fresh = with_fresh_state(variables_of(model))
    target = np.random.default_rng(1).integers(0, CLASSES, (2, 8, 16))
    maps = features(fresh)

    def loss(state_params):
        params = {**fresh["params"], "prediction_state": state_params}
        memory, total = model.init_memory(2, SIZE, KEY), 0.0
        for t in range(3):
            frame = jax.tree.map(lambda x, t=t: x[:, t], maps)
            memory, output = model.apply(
                {**fresh, "params": params}, memory, frame, method="update"
            )
            log_p = jax.nn.log_softmax(output.logits)
            total -= jnp.take_along_axis(log_p, target[..., None], -1).mean()
        return total

    state_params = fresh["params"]["prediction_state"]
    gradient = quick_jit(jax.grad(loss))(state_params)
    # With a gain of 0, the gradient of trust is 0 as well.
    assert abs(gradient["gain"]) > 0
    moved = jax.tree.map(lambda x: x + 0.01, state_params)
    for path, x in jax.tree_util.tree_leaves_with_path(
        quick_jit(jax.grad(loss))(moved)
    ):
        assert np.isfinite(x).all() and np.abs(x).max() > 0, path


def features(variables):
    flat = FRAMES.reshape(-1, *SIZE, 3)
    maps = quick_jit(partial(WITH.apply, method="encode"))(variables, flat)
    return Features(*(x.reshape(2, 4, *x.shape[1:]) for x in jax.tree.leaves(maps)))


def trusts(frames):
    """Returns the mean trust in each frame if appearance alone decides, [T]."""
    state = PredictionState(parts=PARTS)
    carry = jax.tree.map(lambda x: x[None], state.init_carry((64, 64), CLASSES))
    logits = jnp.zeros((1, 16, 16, CLASSES))
    looks, active = appearance(jnp.float32(frames)), jnp.ones(1, bool)
    variables = state.init(KEY, carry, logits, looks[:1], active)
    # Cell, window and frame, of about the sizes that training gives them.
    kernel = jnp.array([0, -3.5, -9]).reshape(1, 1, 3, 1) / APPEARANCE_SCALE
    params = {**variables["params"], "appearance_weight": {"kernel": kernel}}
    step, trusts = quick_jit(state.apply), []
    for look in looks:
        _, carry, trust = step({"params": params}, carry, logits, look[None], active)
        trusts.append(float(trust.mean()))
    return np.array(trusts)


def test_areas_count_only_where_a_frame_looks_unusual():
    """What a prediction loses does not make a frame that looks as usual suspect."""
    state = PredictionState(parts=DEFAULT)
    carry = jax.tree.map(lambda x: x[None], state.init_carry((64, 64), CLASSES))
    shown = np.full((1, 16, 16, CLASSES), -4, np.float32)
    shown[..., 0] = 4
    hidden = shown.copy()
    shown[:, 4:12, 4:12, :2] = -4, 4
    active = jnp.ones(1, bool)
    usual = appearance(jnp.float32(moving(0, 1)))
    variables = state.init(KEY, carry, shown, usual, active)
    # The area that was lost on balance, of the frame; nothing else decides.
    kernel = jnp.zeros((1, 1, 10, 1)).at[..., 6, :].set(-3 / AREAS_SCALE)
    params = {**variables["params"], "areas_weight": {"kernel": kernel}}
    step = quick_jit(state.apply)
    _, carry, _ = step({"params": params}, carry, shown, usual, active)
    trust = {}
    for name, look in (("usual", usual), ("dark", usual - 1)):
        _, _, trust[name] = step({"params": params}, carry, hidden, look, active)
    np.testing.assert_allclose(trust["usual"], jax.nn.sigmoid(TRUST_BIAS), rtol=1e-6)
    assert trust["dark"].max() < 0.2


def moving(seed, count):
    """Returns frames of a smooth texture that moves by a pixel per frame."""
    rough = np.random.default_rng(seed).random((12, 12, 3), np.float32)
    smooth = np.asarray(jax.image.resize(rough, (144, 144, 3), "linear"))
    return np.stack([smooth[x : x + 64, x : x + 64] for x in range(count)])


def test_disturbed_frames_are_not_trusted_until_they_end():
    frames = moving(0, 40)
    frames[15:27] *= [1, 0.5, 0.5]  # as blood on the lens
    trust = trusts(frames)
    assert trust[7:15].min() > 0.9 and trust[15:27].max() < 0.1
    assert trust[15 : 15 + int(HORIZON)].max() < 0.01
    assert trust[27:].min() > 0.9


def test_a_new_scene_is_trusted_in_the_end():
    frames = np.concatenate([moving(0, 15), 0.5 * moving(1, 60)])
    trust = trusts(frames)
    assert trust[15:20].max() < 0.1 and trust[-20:].min() > 0.9


def test_pictures_are_trusted_from_the_third_difference_on():
    pictures = np.concatenate([moving(seed, 1) for seed in range(16)])
    pictures[::2] *= 0.5
    trust = trusts(np.concatenate([moving(0, 15), pictures]))
    assert trust[15] < 0.1 and trust[17:].min() > 0.8
    assert trusts(pictures)[3:].min() > 0.8
    # Two pictures between frames of a video are not enough.
    video = moving(0, 40)
    video[20] *= 0.5
    video[21] *= 0.25
    trust = trusts(video)
    assert trust[20:22].max() < 0.1 and trust[22:].min() > 0.9


def test_the_scene_is_known_when_a_trusted_disturbance_ends(monkeypatch):
    frames = moving(0, 40)
    frames[15:30] *= np.linspace(1, 0.6, 15, dtype=np.float32)[:, None, None, None]
    trust = trusts(frames)
    assert trust[15:30].min() > 0.9 and trust[30:].min() > 0.8
    monkeypatch.setattr(looks_module, "SCENE_PACE", PACE)
    assert trusts(frames)[30] < 0.2
