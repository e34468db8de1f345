"""Stream, scan and clip call the same step, agree, and are causal."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax import memory as mem
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.features import Features
from dmnet_jax.models.protocol import ClipBatch
from dmnet_jax.nn import mobilenet
from tests.support.random_variables import quick_jit, random_variables

SIZE = (64, 96)
FRAMES = 7
ADMIT_ALL = {
    "min_confidence": jnp.float32(-jnp.inf),
    "max_similarity": jnp.float32(jnp.inf),
}
# Fewer slots than frames: a stream replaces its oldest ones, and reads 4 of 5.
MODEL = DMNet.tiny(num_classes=3, global_size=5)
KEY = jax.random.key(0)
ALL = {n: np.ones((2, n), bool) for n in (4, 5)}


def draw(shapes):
    return {**random_variables(shapes), "thresholds": ADMIT_ALL}


@pytest.fixture(scope="module")
def pictures():
    shape = (2, FRAMES, *SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def frames(pictures):
    """Normalized frames, which can hold a NaN."""
    return mobilenet.normalize(jnp.asarray(pictures), "keras")


@pytest.fixture(scope="module")
def variables():
    frame = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
    memory = MODEL.init_memory(1, (32, 32), KEY)
    return draw(jax.eval_shape(lambda *x: MODEL.init(*x), KEY, memory, frame))


@pytest.fixture(scope="module")
def empty():
    return MODEL.init_memory(2, SIZE, KEY)


@pytest.fixture(scope="module")
def roll(empty):
    rolled = jax.jit(partial(MODEL.apply))
    return lambda variables, frames: rolled(variables, empty, frames)


@pytest.fixture(scope="module")
def stream():
    traces = []

    @partial(jax.jit, donate_argnums=1)
    def step(variables, memory, frame):
        traces.append(frame.shape)
        return MODEL.apply(variables, memory, frame, method=DMNet.step)

    def run(variables, frames):
        memory, outputs = MODEL.init_memory(len(frames), SIZE, KEY), []
        for t in range(frames.shape[1]):
            memory, output = step(variables, memory, frames[:, t])
            outputs.append(output)
        assert len(traces) == 1, "a stream compiles once"
        return memory, jax.tree.map(lambda *x: np.stack(x, 1), *outputs)

    return run


@pytest.fixture(scope="module")
def clip():
    call = jax.jit(partial(MODEL.apply, method="clip", mutable=["batch_stats"]))

    def run(variables, *inputs):
        return call(variables, ClipBatch(*inputs), KEY)

    return run


def close(a, b, tolerance=1e-4):
    scale = float(np.abs(b).max())
    difference = float(np.abs(a - b).max())
    print(f"largest difference {difference:.2e} of {scale:.2e}")
    assert difference <= tolerance * scale


def finite(x):
    return np.isfinite(x).all()


def test_stream_equals_scan_equals_clip(variables, frames, roll, stream, clip):
    scanned_memory, scanned = roll(variables, frames)
    streamed_memory, streamed = stream(variables, frames)
    spread = np.ptp(scanned.logits, axis=1).mean() / np.abs(scanned.logits).max()
    assert spread > 0.03, "the frames must be different enough to change the output"
    close(streamed.logits, scanned.logits)
    np.testing.assert_array_equal(streamed.admitted, scanned.admitted)
    for memory in (scanned_memory, streamed_memory):
        np.testing.assert_array_equal(memory.global_.stamp, [[5, 6, 2, 3, 4]] * 2)
    # At frame 4 the stream reads frames 0 to 3; the clip gets the same frames.
    output, _ = clip(variables, frames[:, :5], ALL[5], frames[:, :4], ALL[4])
    close(output.logits, scanned.logits[:, 4])


def test_clip_at_the_start_of_a_video_equals_the_stream(
    variables, frames, stream, clip
):
    _, streamed = stream(variables, frames)
    # Frame 1 has one earlier frame; the other three are masked and must not matter.
    window = jnp.concatenate([frames[:, 3:6], frames[:, :2]], axis=1)
    past = jnp.concatenate([frames[:, :1], frames[:, 3:6]], axis=1)
    window_mask = np.array([[False, False, False, True, True]] * 2)
    past_mask = np.array([[True, False, False, False]] * 2)
    output, _ = clip(variables, window, window_mask, past, past_mask)
    close(output.logits, streamed.logits[:, 1])


def test_the_future_does_not_change_the_past(variables, frames, roll):
    _, before = roll(variables, frames)
    _, after = roll(variables, frames.at[:, 4:].multiply(-1))
    np.testing.assert_array_equal(before.logits[:, :4], after.logits[:, :4])
    assert (np.abs(before.logits - after.logits)[:, 4:].max((0, 2, 3, 4)) > 0).all()


def test_videos_of_a_batch_are_independent(variables, frames, roll):
    _, before = roll(variables, frames)
    _, after = roll(variables, frames.at[1].set(0))
    close(after.logits[0], before.logits[0], 1e-6)
    assert float(np.abs(after.logits[1] - before.logits[1]).max()) > 0


def test_non_finite_frames_are_not_remembered(variables, frames, stream):
    """One non-finite frame within a video and one at its start."""
    broken = frames.at[0, 1, 5, 5].set(jnp.nan).at[1, 0, 5, 5].set(jnp.nan)
    memory, output = stream(variables, broken)
    _, clean = stream(variables, frames)
    for video, bad in ((0, 1), (1, 0)):
        others = [t for t in range(FRAMES) if t != bad]
        assert not finite(output.logits[video, bad])
        assert finite(output.logits[video, others])
        np.testing.assert_array_equal(
            output.admitted[video], [t != bad for t in range(FRAMES)]
        )
    leaves = [x for x in jax.tree.leaves(memory) if x.dtype == jnp.float32]
    assert len(leaves) == 4 and all(finite(x) for x in leaves)
    np.testing.assert_array_equal(output.logits[0, 0], clean.logits[0, 0])
    assert output.similarity[1, 1] == -np.inf


def test_thresholds_decide_admission(variables, frames, roll):
    for name, value in (("min_confidence", 0.0), ("max_similarity", -1e9)):
        strict = {**ADMIT_ALL, name: jnp.float32(value)}
        _, output = roll({**variables, "thresholds": strict}, frames)
        expected = [[True] + [False] * (FRAMES - 1)] * 2
        np.testing.assert_array_equal(output.admitted, expected)
        assert finite(output.logits)
    _, output = roll(variables, frames)
    assert output.admitted.all()
    # Between the extremes: half of the frames are confident enough.
    middle = jnp.median(output.confidence)
    _, halved = roll(
        {**variables, "thresholds": {**ADMIT_ALL, "min_confidence": middle}}, frames
    )
    expected = np.array(halved.confidence > middle)
    expected[:, 0] = True
    assert 0 < expected[:, 1:].sum() < expected[:, 1:].size
    np.testing.assert_array_equal(halved.admitted, expected)


def test_gates_equal_the_scores_of_the_memory_library(
    variables, pictures, frames, roll
):
    _, output = roll(variables, frames)
    tops = quick_jit(partial(MODEL.apply, method=DMNet.encode))(
        variables, pictures[0]
    ).top
    for t in range(FRAMES):
        r = mem.confidence(jax.nn.softmax(output.logits[0, t]))
        assert float(output.confidence[0, t]) == pytest.approx(float(r), rel=1e-4)
        if t:
            s = mem.similarity(tops[t - 1], tops[t])
            assert float(output.similarity[0, t]) == pytest.approx(float(s), rel=1e-3)
    assert float(output.similarity[0, 0]) == -jnp.inf


@pytest.mark.parametrize(
    ("local", "global_memory", "share"),
    [
        ("none", False, False),
        ("none", True, False),
        ("nl", False, False),
        ("clstm", False, False),
        ("blstm", False, False),
        ("blstm", True, False),
        ("ela", False, False),
        ("ela", True, True),
    ],
)
def test_networks_of_table_2_use_their_memories(local, global_memory, share):
    model = DMNet.tiny(
        3,
        local=local,
        global_memory=global_memory,
        share_key_value=share,
        local_size=2,
        num_reads=2,
        global_size=2,
    )
    rng = np.random.default_rng(1)

    def features():
        shapes = ((8, 24), (4, 32), (2, 64), (2, 96), (1, 256), (2, 5))
        maps = (6 * rng.random((1, n, n, c), np.float32) for n, c in shapes)
        return Features(*maps)

    memory = model.init_memory(1, (32, 32), KEY)
    update = partial(model.init, method=DMNet.update)
    variables = draw(jax.eval_shape(update, KEY, memory, features()))
    names = {name for name in variables["params"] if "key_value" in name}
    projections = {"local_key_value"} if local in ("nl", "ela") else set()
    if global_memory and not share:
        projections.add("global_key_value")
    assert names == projections

    update = quick_jit(partial(model.apply, method=DMNet.update))
    last, outputs = features(), []
    for past in (0, 3):
        state = memory
        for _ in range(past):
            state, _ = update(variables, state, features())
        _, output = update(variables, state, last)
        assert output.logits.shape == (1, 8, 8, 3) and finite(output.logits)
        outputs.append(np.asarray(output.logits))
    remembers = local != "none" or global_memory
    assert (outputs[0] != outputs[1]).any() == remembers


def test_gradients_reach_every_parameter_and_not_the_past(variables, frames):
    def loss(params, window, past):
        output, updates = MODEL.apply(
            {**variables, "params": params},
            ClipBatch(window, ALL[5], past, ALL[4]),
            KEY,
            train=True,
            batch_statistics=True,
            method="clip",
            mutable=["batch_stats"],
            rngs={"dropout": KEY},
        )
        return jnp.square(output.logits).mean(), updates["batch_stats"]

    gradient = quick_jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    (parts, window, past), statistics = gradient(
        variables["params"], frames[:, :5], frames[:, 1:5]
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        assert finite(leaf) and (leaf != 0).any(), jax.tree_util.keystr(path)
    # Stored items are constants: no gradient reaches the encoder through them.
    assert not (past != 0).any() and not (window[:, :-1] != 0).any()
    assert finite(window[:, -1]) and (window[:, -1] != 0).any()
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), statistics, variables["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))


def test_memory_gradient_reaches_the_past(variables, frames):
    model = MODEL.clone(local="none", num_reads=1)

    def loss(past):
        output = model.apply(
            variables,
            ClipBatch(
                frames[:1, :1], np.ones((1, 1), bool), past, np.ones((1, 1), bool)
            ),
            KEY,
            memory_gradient=True,
            method="clip",
        )
        return jnp.square(output.logits).mean()

    gradient = quick_jit(jax.grad(loss))(frames[:1, 1:2])
    assert finite(gradient) and (gradient != 0).any()


def test_running_statistics_change_only_on_request(variables, frames, clip):
    _, updates = clip(variables, frames[:, :5], ALL[5], frames[:, :4], ALL[4])
    after = updates.get("batch_stats", variables["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, after, variables["batch_stats"])


def test_single_frame_shares_parameters(variables, frames):
    alone = MODEL.single_frame()
    memory = alone.init_memory(2, SIZE, KEY)
    step = quick_jit(partial(alone.apply, method=DMNet.step))
    memory, first = step(variables, memory, frames[:, 0])
    # Without a memory, earlier frames do not change the output by a single bit.
    memory, _ = step(variables, memory, frames[:, 1])
    _, again = step(variables, memory, frames[:, 0])
    assert first.logits.shape == (2, 16, 24, 3) and finite(first.logits)
    np.testing.assert_array_equal(again.logits, first.logits)
    memory = alone.init_memory(1, (32, 32), KEY)
    pixels = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
    names = jax.eval_shape(alone.init, KEY, memory, pixels)["params"]
    shapes = jax.tree.map(
        jnp.shape, {name: variables["params"][name] for name in names}
    )
    assert jax.tree.map(jnp.shape, names) == shapes


def test_wrong_sizes_are_named_in_the_error():
    with pytest.raises(ValueError, match="60x96.*multiples of 32"):
        MODEL.init(KEY, MODEL.init_memory(1, SIZE, KEY), jnp.zeros((1, 1, 60, 96, 3)))
    with pytest.raises(ValueError, match="value_channels is 64.*must be 128"):
        narrow = DMNet.tiny(3, value_channels=64)
        narrow.init(KEY, narrow.init_memory(1, SIZE, KEY), jnp.zeros((1, 1, *SIZE, 3)))
