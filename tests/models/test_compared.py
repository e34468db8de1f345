"""The compared networks behind one interface: stream, scan and clip agree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from data_pipelines.loading.flow import dense_flow
from dmnet_jax import parallel
from dmnet_jax.config import OptimConfig
from dmnet_jax.models.dmnet import TINY
from dmnet_jax.models.linknet import LinkNet
from dmnet_jax.models.lwanet import LWANet
from dmnet_jax.models.paanet import PAANetStyle
from dmnet_jax.models.protocol import ClipBatch
from dmnet_jax.models.tapnet import TAPNet, flow_between, moved
from dmnet_jax.models.tdnet import TDNet
from dmnet_jax.models.ternausnet import TernausNet
from dmnet_jax.nn.resizing import resize
from dmnet_jax.training import create_state, train_step
from dmnet_jax.training.losses import cross_entropy_loss
from tests.support.random_variables import quick_jit, random_variables
from tests.support.tiny_run import linear, picture

KEY = jax.random.key(0)
SIZE = (64, 64)
SHALLOW = (1, 1, 1, 1)

# The smallest sizes that the networks accept.
SMALL = {
    "TernausNet": partial(TernausNet, layers=11, width=8),
    "LinkNet": partial(LinkNet, blocks=SHALLOW, width=8),
    "RAUNet": partial(LinkNet, blocks=SHALLOW, width=8, attention=True),
    "PAANet-style": partial(PAANetStyle, blocks=SHALLOW, width=8),
    "LWANet": partial(LWANet, stages=TINY["stages"]),
    "TD2": partial(TDNet, paths=2, blocks=SHALLOW, width=8, norm_size=(8, 8)),
    "TD4": partial(TDNet, paths=4, blocks=SHALLOW, width=8, norm_size=(8, 8)),
    "TAPNet": partial(TAPNet, width=8),
}
# The number of frames that a network reads, if it is not one.
WINDOW = {"TD2": 2, "TD4": 4, "TAPNet": 2}


def soak_except(*names):
    """All networks; those not in `names` are tested only with `-m soak`."""
    return [
        name if name in names else pytest.param(name, marks=pytest.mark.soak)
        for name in SMALL
    ]


UNLIKE = soak_except("LinkNet", "TD2", "TAPNet")


class Small:
    """A small network with variables, and its programs."""

    def __init__(self, name):
        self.model = SMALL[name](3)
        self.window = WINDOW.get(name, 1)
        self.paths = getattr(self.model, "paths", 1)
        self.traces = []
        memory = self.model.init_memory(1, SIZE, KEY)
        frames = jax.ShapeDtypeStruct((1, 1, *SIZE, 3), jnp.uint8)
        shapes = jax.eval_shape(self.model.init, KEY, memory, frames)
        self.variables = {"batch_stats": {}, **random_variables(shapes)}
        self.roll = quick_jit(self.model.apply)
        self.step = quick_jit(self._step)
        self.clip = quick_jit(partial(self.model.apply, method="clip"))

    def _step(self, variables, memory, frame):
        self.traces.append(frame.shape)
        return self.model.apply(variables, memory, frame, method="step")

    def stream(self, frames):
        outputs = []
        memory = self.model.init_memory(len(frames), frames.shape[2:4], KEY)
        for t in range(frames.shape[1]):
            memory, output = self.step(self.variables, memory, frames[:, t])
            outputs.append(output)
        return jax.tree.map(lambda *x: np.stack(x, 1), *outputs)

    def key(self, path):
        """A key with which a training clip ends on the given path."""
        keys = map(jax.random.key, range(99))
        return next(k for k in keys if jax.random.randint(k, (), 0, self.paths) == path)


@pytest.fixture(scope="module")
def small():
    cache = {}
    return lambda name: cache.get(name) or cache.setdefault(name, Small(name))


def video(length, size=SIZE):
    """uint8 [2, T, H, W, 3] and labels of the last frames, [2, H, W]."""
    rows = [[picture(i, size, seed) for i in range(length)] for seed in (0, 7)]
    images = np.array([[image for image, _ in row] for row in rows])
    return images, np.array([row[-1][1] for row in rows])


def close(a, b):
    scale = float(np.abs(b).max())
    assert scale > 0 and np.isfinite(b).all()
    np.testing.assert_allclose(a, b, atol=1e-4 * scale)


@pytest.mark.parametrize("name", UNLIKE)
def test_stream_equals_scan_equals_clip(small, name):
    network, (frames, _) = small(name), video(5)
    streamed = network.stream(frames)
    assert len(network.traces) == 1, "a stream compiles once"
    memory = network.model.init_memory(2, SIZE, KEY)
    _, rolled = network.roll(network.variables, memory, frames)
    assert rolled.logits.shape[:2] == (2, 5) and rolled.logits.shape[-1] == 3
    close(streamed.logits, rolled.logits)
    assert (rolled.confidence <= 0).all() and not rolled.admitted.any()

    def clip(last, present):
        """The output of a clip ending at `last`, with or without the earlier frames."""
        window = network.window
        mask = np.array([[present] * (window - 1) + [True]] * 2)
        indices = np.arange(last - window + 1, last + 1).clip(0)
        none, key = frames[:, :0], network.key(last % network.paths)
        batch = ClipBatch(frames[:, indices], mask, none, mask[:, :0])
        return network.clip(network.variables, batch, key)

    # After a clip's number of frames a stream has seen the same; at its start, nothing.
    close(clip(network.window - 1, True).logits, rolled.logits[:, network.window - 1])
    close(clip(0, False).logits, rolled.logits[:, 0])


@pytest.mark.parametrize("name", UNLIKE)
def test_earlier_frames_matter_only_with_memory(small, name):
    network, (frames, _) = small(name), video(5)
    before = network.stream(frames).logits[:, 4]
    after = network.stream(np.concatenate([frames[:, :3, ::-1], frames[:, 3:]], 1))
    changed = np.abs(after.logits[:, 4] - before).max() > 0
    # MF-TAPNet reads the previous frame, whose prior was different.
    assert changed == (name in WINDOW and name != "TD2")


@pytest.mark.parametrize("name", UNLIKE)
def test_other_sizes_are_padded_and_cropped(small, name):
    network, (frames, _) = small(name), video(1, (50, 60))
    output = network.stream(frames)
    assert output.logits.shape == (2, 1, 50, 60, 3)
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 14), (0, 4), (0, 0)), mode="edge")
    whole = resize(network.stream(padded).logits[:, 0], SIZE)
    close(output.logits[:, 0], whole[:, :50, :60])


@pytest.mark.parametrize("name", soak_except("PAANet-style"))
def test_gradients_are_finite_and_the_loss_falls_on_two_clips(small, name):
    network = small(name)
    frames, labels = video(network.window)
    mask = np.ones((2, network.window), bool)
    tx = optax.adam(3e-3)

    def loss_of(params, statistics, key):
        output, updates = network.model.apply(
            {"params": params, "batch_stats": statistics},
            ClipBatch(frames, mask, frames[:, :0], mask[:, :0]),
            key,
            train=True,
            method="clip",
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        logits = resize(output.logits, SIZE)
        return cross_entropy_loss(logits, labels), updates.get("batch_stats", {})

    @quick_jit
    def step(params, statistics, state, key):
        (loss, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            params, statistics, key
        )
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), statistics, state, loss, gradient

    params, statistics = network.variables["params"], network.variables["batch_stats"]
    state, losses = tx.init(params), []
    for i in range(30):
        key = jax.random.key(i)
        params, statistics, state, loss, gradient = step(params, statistics, state, key)
        losses.append(float(loss))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    print(losses)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:2])


def test_tdnet_returns_path_and_third_stage_logits(small):
    network = small("TD2")
    model = network.model.clone(auxiliary=True)
    frames, _ = video(2)
    mask = np.ones((2, 2), bool)
    memory = model.init_memory(2, SIZE, KEY)

    def both():
        variables = model.init(KEY, memory, frames[:, :1])
        inputs = ClipBatch(frames, mask, frames[:, :0], mask[:, :0]), KEY
        return model.apply(
            variables,
            *inputs,
            train=True,
            method="clip",
            mutable=["batch_stats", "auxiliary"],
            rngs={"dropout": KEY},
        )

    _, updates = jax.eval_shape(both)
    sown = updates["auxiliary"]
    assert {name: logits.shape for name, ((_, logits),) in sown.items()} == {
        "path": (2, 8, 8, 3),
        "third": (2, 8, 8, 3),
    }


def test_a_prior_moves_with_the_flow_and_widens():
    foreground = np.zeros((1, 32, 32), np.float32)
    foreground[0, 10, 5] = 0.5
    flow = np.zeros((1, 32, 32, 2), np.float32)
    flow[..., 0], flow[..., 1] = 12.4, -1.6
    actual = np.asarray(moved(foreground, flow))[0]
    rows, columns = np.nonzero(actual)
    assert actual.max() == 0.5 and (actual[actual > 0] == 0.5).all()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 13, 13, 22)


def test_flow_is_requested_by_the_running_program():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, 3, 64, 64, 3), np.uint8)
    actual = jax.jit(flow_between)(before, after)
    expected = [dense_flow(*pair) for pair in zip(before, after, strict=True)]
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["TD2", "TAPNet", "LWANet"])
def test_four_devices_train_as_one(name):
    """All devices take the same path, and statistics are of the whole batch."""
    network = Small(name)
    pair = video(network.window)
    frames, labels = (np.concatenate([x, x[:, ::-1]]) for x in pair)
    frames[2:] = frames[:2, ..., ::-1, :, :]  # upside down, as are their labels
    mask = np.ones((4, network.window), bool)
    batch = {
        "frames": frames,
        "frames_mask": mask,
        "past": frames[:, :0],
        "past_mask": mask[:, :0],
        "label": labels,
    }
    # Dropout differs between devices and would hide other differences.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Dropout, "__call__", lambda self, x, **_: x)
        states = []
        for axis in (None, parallel.AXIS):
            step = partial(
                train_step,
                model=network.model.clone(axis_name=axis),
                tx=linear(),
                optim=OptimConfig(dice_weight=1.0),
                axis_name=axis,
            )
            state = create_state(network.variables, linear(), key=jax.random.key(9))
            if axis is None:
                state, metrics = jax.jit(step)(state, batch)
            else:
                state = parallel.place_replicated(state)
                step = parallel.data_parallel(step)
                state, metrics = step(state, parallel.shard_batch(batch))
            assert int(metrics["skipped"]) == 0
            states.append(jax.device_get(state.variables))
    for one, four in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, four, atol=1e-4)
