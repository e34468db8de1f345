"""One step, three callers: stream, scan and clip agree, and none sees the future."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax import memory as mem
from dmnet_jax.models import single_frame
from dmnet_jax.models.dmnet import DMNet

SIZE = (64, 96)
FRAMES = 6
ADMIT_ALL = {
    "min_confidence": jnp.float32(-jnp.inf),
    "max_similarity": jnp.float32(jnp.inf),
}
MODEL = DMNet(num_classes=3, global_size=8)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def frames():
    return jax.random.randint(KEY, (2, FRAMES, *SIZE, 3), 0, 255).astype(jnp.uint8)


@pytest.fixture(scope="module")
def variables(frames):
    init = jax.jit(MODEL.init)
    made = init(KEY, MODEL.init_memory(2, SIZE, KEY), frames[:, :1])
    return {**made, "thresholds": ADMIT_ALL}


@pytest.fixture(scope="module")
def roll():
    return jax.jit(MODEL.apply)


@pytest.fixture(scope="module")
def step():
    traces = []

    def one(variables, memory, frame):
        traces.append(frame.shape)
        return MODEL.apply(variables, memory, frame, method=DMNet.step)

    stepped = jax.jit(one, donate_argnums=1)

    def stream(variables, frames):
        memory, outputs = MODEL.init_memory(frames.shape[0], SIZE, KEY), []
        for t in range(frames.shape[1]):
            memory, output = stepped(variables, memory, frames[:, t])
            outputs.append(output)
        return memory, jax.tree.map(lambda *x: jnp.stack(x, 1), *outputs)

    stream.traces = traces
    return stream


def close(a, b, tolerance=1e-4):
    scale = float(jnp.abs(b).max())
    difference = float(jnp.abs(a - b).max())
    print(f"largest difference {difference:.2e} of {scale:.2e}")
    assert difference <= tolerance * scale


def test_stream_equals_scan_equals_clip(variables, frames, roll, step):
    memory = MODEL.init_memory(2, SIZE, KEY)
    scanned_memory, scanned = roll(variables, memory, frames)
    streamed_memory, streamed = step(variables, frames)
    close(streamed.logits, scanned.logits)
    np.testing.assert_array_equal(streamed.admitted, scanned.admitted)
    np.testing.assert_array_equal(
        streamed_memory.global_.stamp, scanned_memory.global_.stamp
    )
    # At frame 4 the stream reads all of frames 0 to 3; a clip is given the same.
    clip = MODEL.apply(
        variables,
        frames[:, :5],
        jnp.ones((2, 5), bool),
        frames[:, :4],
        jnp.ones((2, 4), bool),
        KEY,
        method=DMNet.clip,
    )
    close(clip.logits, scanned.logits[:, 4])
    assert len(step.traces) == 1


def test_clip_at_the_start_of_a_video_equals_the_stream(variables, frames, step):
    _, streamed = step(variables, frames)
    # Frame 1: one frame of past, three that never were (their content must not count).
    window = jnp.concatenate([frames[:, 3:6], frames[:, :2]], axis=1)
    clip = MODEL.apply(
        variables,
        window,
        jnp.array([[False, False, False, True, True]] * 2),
        jnp.concatenate([frames[:, :1], frames[:, 3:6]], axis=1),
        jnp.array([[True, False, False, False]] * 2),
        KEY,
        method=DMNet.clip,
    )
    close(clip.logits, streamed.logits[:, 1])


def test_the_future_does_not_change_the_past(variables, frames, roll):
    memory = MODEL.init_memory(2, SIZE, KEY)
    _, before = roll(variables, memory, frames)
    changed = frames.at[:, 4:].set(255 - frames[:, 4:])
    _, after = roll(variables, memory, changed)
    np.testing.assert_array_equal(before.logits[:, :4], after.logits[:, :4])
    assert float(jnp.abs(before.logits[:, 4:] - after.logits[:, 4:]).max()) > 0


def test_videos_of_a_batch_do_not_meet(variables, frames, roll):
    memory = MODEL.init_memory(2, SIZE, KEY)
    _, before = roll(variables, memory, frames)
    _, after = roll(variables, memory, frames.at[1].set(0))
    close(after.logits[0], before.logits[0], 1e-6)
    assert float(jnp.abs(after.logits[1] - before.logits[1]).max()) > 0


def test_a_frame_that_is_not_finite_is_forgotten(variables, frames, roll):
    x = frames.astype(jnp.float32) / 255
    _, clean = MODEL.apply(variables, MODEL.init_memory(2, SIZE, KEY), x[:, :1])
    memory = MODEL.init_memory(2, SIZE, KEY)
    outputs = []
    for t, frame in enumerate(jnp.moveaxis(x[:, :3], 1, 0)):
        frame = frame.at[0, 5, 5].set(jnp.nan) if t == 1 else frame
        memory, output = MODEL.apply(variables, memory, frame, method=DMNet.step)
        outputs.append(output)
    np.testing.assert_array_equal(outputs[1].admitted, [False, True])
    assert not bool(jnp.isfinite(outputs[1].logits[0]).all())
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in floats(memory))
    assert bool(jnp.isfinite(outputs[2].logits).all())
    close(outputs[0].logits, clean.logits[:, 0])


def floats(tree):
    leaves = [memory_leaf for memory_leaf in jax.tree.leaves(tree)]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def test_thresholds_decide_admission(variables, frames, roll):
    memory = MODEL.init_memory(2, SIZE, KEY)
    for name, value in (("min_confidence", 0.0), ("max_similarity", -1e9)):
        strict = {**ADMIT_ALL, name: jnp.float32(value)}
        _, output = roll({**variables, "thresholds": strict}, memory, frames)
        expected = [[True] + [False] * (FRAMES - 1)] * 2
        np.testing.assert_array_equal(output.admitted, expected)
    _, output = roll(variables, memory, frames)
    assert bool(output.admitted.all())


def test_gates_are_what_the_memory_library_computes(variables, frames, roll):
    memory = MODEL.init_memory(2, SIZE, KEY)
    _, output = roll(variables, memory, frames)
    features = MODEL.apply(variables, frames[0], method=DMNet.encode)
    for t in range(FRAMES):
        r = mem.confidence(jax.nn.softmax(output.logits[0, t]))
        assert float(output.confidence[0, t]) == pytest.approx(float(r), rel=1e-4)
        if t:
            s = mem.similarity(features.top[t - 1], features.top[t])
            assert float(output.similarity[0, t]) == pytest.approx(float(s), rel=1e-3)
    assert float(output.similarity[0, 0]) == -jnp.inf


@pytest.mark.parametrize(
    ("local", "global_memory", "share"),
    [
        ("none", False, False),
        ("none", True, False),
        ("nl", False, False),
        ("clstm", False, False),
        ("blstm", True, False),
        ("ela", True, True),
    ],
)
def test_every_switch_gives_a_network_that_streams(local, global_memory, share):
    model = DMNet(
        3,
        local=local,
        global_memory=global_memory,
        share_key_value=share,
        local_size=2,
        num_reads=2,
        global_size=3,
    )

    def run(key, frames):
        memory = model.init_memory(1, (32, 32), key)
        variables = model.init(key, memory, frames)
        return model.apply(variables, memory, frames)[1]

    frames = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.uint8)
    output = jax.eval_shape(run, KEY, frames)
    assert output.logits.shape == (1, 4, 8, 8, 3)
    assert output.admitted.shape == (1, 4)


def test_gradients_reach_every_part(variables, frames):
    def loss(params, memory_gradient):
        output = MODEL.apply(
            {**variables, "params": params},
            frames[:1, :5],
            jnp.ones((1, 5), bool),
            frames[:1, 1:5],
            jnp.ones((1, 4), bool),
            KEY,
            memory_gradient=memory_gradient,
            method=DMNet.clip,
        )
        return jnp.square(output.logits).mean()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)(variables["params"], False)
    for name, part in gradient.items():
        norms = [float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(part)]
        assert all(np.isfinite(norms)), name
        assert max(norms) > 0, name


def test_single_frame_shares_parameters(variables, frames):
    alone = single_frame(MODEL)
    memory = alone.init_memory(2, SIZE, KEY)
    _, output = alone.apply(variables, memory, frames[:, :2])
    assert output.logits.shape == (2, 2, 16, 24, 3)
    # Without a memory the order of frames means nothing.
    _, swapped = alone.apply(variables, memory, frames[:, 1::-1])
    close(swapped.logits, output.logits[:, ::-1], 1e-5)


def test_batch_statistics_change_only_when_asked(variables, frames):
    for asked in (False, True):
        _, updates = MODEL.apply(
            variables,
            frames[:, :5],
            jnp.ones((2, 5), bool),
            frames[:, :4],
            jnp.ones((2, 4), bool),
            KEY,
            batch_statistics=asked,
            method=DMNet.clip,
            mutable=["batch_stats"],
        )
        after = updates.get("batch_stats", variables["batch_stats"])
        changed = jax.tree.map(
            lambda a, b: bool((a != b).any()), after, variables["batch_stats"]
        )
        assert any(jax.tree.leaves(changed)) == asked


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="60x96.*multiples of 32"):
        MODEL.init(KEY, MODEL.init_memory(1, SIZE, KEY), jnp.zeros((1, 1, 60, 96, 3)))
    with pytest.raises(ValueError, match="value_channels is 64.*must be 128"):
        narrow = DMNet(3, value_channels=64)
        narrow.init(KEY, narrow.init_memory(1, SIZE, KEY), jnp.zeros((1, 1, *SIZE, 3)))
