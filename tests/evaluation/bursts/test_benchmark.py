"""The burst benchmark on a network simple enough to compute by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from data_pipelines.corruption import Burst, Corrupted
from dmnet_jax.evaluation import Scoring, evaluate
from dmnet_jax.evaluation.bursts import benchmark
from dmnet_jax.evaluation.bursts.benchmark import run_bursts
from dmnet_jax.evaluation.bursts.controls import is_empty, shuffled
from dmnet_jax.metrics import frame_counts
from dmnet_jax.models.protocol import Output, VideoSegmenter
from dmnet_jax.nn.resizing import resize
from tests.support.tiny_run import Videos, network

SIZE, SMALL = (64, 64), (16, 16)


class Fading(VideoSegmenter):
    """Outputs half of the frame plus half of its previous output."""

    num_classes: int = 3

    @nn.nowrap
    def init_memory(self, batch, size, key):
        shape = (batch, size[0] // 4, size[1] // 4, 3)
        return {"map": jnp.zeros(shape), "frames": jnp.zeros(batch, jnp.int32)}

    def __call__(self, memory, frames, *, train=False):
        before, result = memory["map"], []
        for t in range(frames.shape[1]):
            small = frames[:, t].astype(jnp.float32) / 255
            small = small.reshape(1, 16, 4, 16, 4, 3).mean((2, 4))
            result.append(0.5 * small[..., ::-1] + before)
            before = 0.5 * result[-1]
        none = jnp.zeros((1, len(result)))
        output = Output(jnp.stack(result, 1), none, none, none > 0)
        return {"map": before, "frames": memory["frames"] + len(result)}, output


class Alone(Fading):
    """The same without a memory."""

    def init_memory(self, batch, size, key):
        return {}

    def __call__(self, memory, frames, *, train=False):
        none = Fading.init_memory(self, 1, SIZE, None)
        return {}, Fading.__call__(self, none, frames)[1]


SOURCE = Videos((26, 14), frozenset({10}))
PLAN = [
    [(Burst("blood", 4, 8, 3, 5), Burst("black", 0, 20, 1, 6)), ()],
    [(Burst("smoke", 5, 9, 1, 7),), (Burst("defocus", 5, 8, 3, 8),)],
]


def run_all(model=Fading(), source=SOURCE, plan=PLAN, **options):  # noqa: B008
    result = run_bursts(model, {}, source, plan, **options)
    return {(s.row, s.run, s.video, s.frame): s for s in result}


@pytest.fixture(scope="module")
def everything():
    return run_all(controls=True)


def plain_step(memory, image):
    small = image.astype(np.float64).reshape(16, 4, 16, 4, 3).mean((1, 3)) / 255
    results = 0.5 * small[..., ::-1] + memory
    return 0.5 * results, results


def counted(scores, video, frame):
    label = np.asarray(jnp.argmax(resize(jnp.asarray(scores)[None], SIZE)[0], -1))
    return frame_counts(label, SOURCE.label(video, frame), 3)


def memory_of(video, frames):
    memory = np.zeros((*SMALL, 3))
    for frame in range(frames):
        memory, _ = plain_step(memory, SOURCE.image(video, frame))
    return memory


def test_rows_equal_plain_loops(everything):
    """Each video, clean and in each pass, row by row in Python."""
    expected = {}
    nothing = np.zeros((*SMALL, 3))
    for run, schedules in enumerate([[(), ()], *PLAN]):
        source = Corrupted(SOURCE, schedules)
        for video, info in enumerate(SOURCE.videos):
            memory, before, clean, mean = nothing, None, None, None
            wrong = {}
            for frame in range(len(info.frames)):
                burst, image = source.burst(video, frame), source.image(video, frame)
                if burst is None:
                    wrong = {}
                elif burst.start == frame:
                    wrong[benchmark.EMPTIED] = nothing
                    wrong[benchmark.FOREIGN] = memory_of(1 - video, (14, 26)[video])
                memory, results = plain_step(memory, image)
                repeated, single = plain_step(nothing, image)
                mask = single if before is None else before
                before = single
                clean = single if burst is None else clean
                exp = np.exp(single)
                now = exp / exp.sum(-1, keepdims=True)
                mean = now if mean is None else 0.6 * mean + 0.4 * now
                scores = {
                    benchmark.NETWORK: results,
                    benchmark.SINGLE: single,
                    "last mask": mask,
                    "last clean mask (told)": clean,
                    "average 0.6": mean,
                }
                for name in wrong:
                    wrong[name], scores[name] = plain_step(wrong[name], image)
                if burst is not None:
                    scores[benchmark.CURRENT] = plain_step(repeated, image)[1]
                if frame != 10:
                    for name, score in scores.items():
                        expected[name, run, video, frame] = counted(score, video, frame)
    others = {benchmark.SHUFFLED, "average 0.4", "average 0.8"}
    assert {key for key in everything if key[0] not in others} == {*expected}
    for key, counts in expected.items():
        # Rounding may change pixels with equal scores.
        assert np.abs(everything[key].counts - counts).max() <= 3, key


def test_bursts_are_named_and_numbered(everything):
    assert not any(frame == 10 for *_, frame in everything)  # has no label
    for row in (benchmark.NETWORK, benchmark.SHUFFLED):
        first = everything[row, 1, 0, 8]
        assert first[4:8] == (1, "blood", 4, 1)
        assert everything[row, 1, 0, 9][4:8] == (1, "blood", 4, 2)
        assert everything[row, 1, 0, 20][4:8] == (2, "black", 0, 1)
        assert everything[row, 2, 1, 9][4:8] == (1, "defocus", 5, 2)
    assert everything[benchmark.NETWORK, 1, 0, 7][4:8] == (0, "", 0, 0)
    assert everything[benchmark.NETWORK, 1, 0, 12][4:8] == (1, "", 0, 0)
    assert (benchmark.SHUFFLED, 1, 0, 12) not in everything


def test_frames_before_the_first_burst_equal_the_clean_video(everything):
    for row in (benchmark.NETWORK, benchmark.SINGLE, "average 0.8"):
        for frame in range(8):
            for run in (1, 2):
                clean, result = (everything[row, r, 0, frame] for r in (0, run))
                np.testing.assert_array_equal(clean.counts, result.counts)


def test_without_controls_the_network_scores_the_same(everything):
    alone = run_all()
    assert {key[0] for key in alone} == {benchmark.NETWORK}
    for key, scored in alone.items():
        np.testing.assert_array_equal(scored.counts, everything[key].counts)


def test_the_foreign_memory_may_be_of_other_videos(everything):
    """Without any other video there is no such row."""
    source, plan = Videos((26,), frozenset({10})), [PLAN[0][:1]]
    result = run_all(source=source, plan=plan, controls=True)
    assert benchmark.FOREIGN not in {key[0] for key in result}
    others = Videos((3, 14))
    result = run_all(source=source, plan=plan, controls=True, others=others)
    key = benchmark.FOREIGN, 1, 0, 20
    memory = memory_of(0, 3)  # tiny_run draws the same first frames for all lengths
    image = np.zeros((*SIZE, 3), np.uint8)
    expected = counted(plain_step(memory, image)[1], 0, 20)
    assert np.abs(result[key].counts - expected).max() <= 3
    assert not np.array_equal(result[key].counts, everything[key].counts)


def test_network_without_memory_equals_the_single_frame(everything):
    result = run_all(Alone(), controls=True)
    assert {key[0] for key in result} == {
        benchmark.NETWORK,
        "last mask",
        "last clean mask (told)",
        "average 0.4",
        "average 0.6",
        "average 0.8",
    }
    for key, scored in result.items():
        if key[0] == benchmark.NETWORK:
            single = everything[benchmark.SINGLE, *key[1:]]
            np.testing.assert_array_equal(scored.counts, single.counts)


def test_shuffling_permutes_positions_only():
    key = jax.random.key(0)
    maps = jnp.arange(2 * 3 * 4 * 5.0).reshape(1, 2, 3, 4, 5)
    memory = {
        "ring": maps,
        "map": maps[:, 0],
        "other": jnp.arange(24.0).reshape(1, 6, 4, 1),
        "rows": jnp.arange(12.0).reshape(1, 3, 4),
        "count": jnp.arange(120).reshape(1, 2, 3, 4, 5),
        "key": key[None],
    }
    result = shuffled(memory, jax.random.key(1))
    for name in ("rows", "count"):
        np.testing.assert_array_equal(result[name], memory[name])
    assert result["key"] == memory["key"]
    # One permutation of twelve places for all maps of 3x4, channels kept together.
    flat = result["ring"].reshape(2, 12, 5)
    order = (flat[0, :, 0] // 5).astype(int)
    assert sorted(order.tolist()) == list(range(12)) != order.tolist()
    np.testing.assert_array_equal(flat, maps.reshape(2, 12, 5)[:, order])
    np.testing.assert_array_equal(result["map"], result["ring"][:, 0])
    assert sorted(result["other"].ravel().tolist()) == list(range(24))
    assert is_empty({}) and not is_empty(memory)


def test_invalid_requests_are_refused():
    with pytest.raises(ValueError, match="no burst fits into videos of at most 26"):
        run_all(plan=[[(), ()]])
    unlabeled = Videos((12, 9), frozenset(range(8, 12)))
    plan = [[(Burst("smoke", 1, 8, 3, 0),), ()]]
    with pytest.raises(ValueError, match="no corrupted frame of video0, video1 has"):
        run_all(source=unlabeled, plan=plan)


def test_clean_run_equals_an_evaluation(everything):
    variables = {"params": {"none": np.ones(1)}}
    expected = evaluate(
        Fading(), variables, SOURCE, scoring=Scoring(tolerance_px=1)
    ).counts
    clean = [s.counts for s in everything.values() if s[:2] == (benchmark.NETWORK, 0)]
    assert np.abs(np.array(clean) - expected).max() <= 3


def test_several_memories_of_dmnet_are_traced_together():
    """Traced, not compiled: rings, keys and counters of several memories."""
    source = Videos((10,))
    model, variables = network()
    roll = benchmark.Roll(model, variables, source, 0, Scoring(), controls=True)
    assert roll.has_features and not roll.forgetful
    memories = [roll.fresh, shuffled(roll.fresh, jax.random.key(0)), roll.fresh]
    result = jax.eval_shape(
        lambda: roll.see(source.image(0, 0), memories, repeated=True)
    )
    for memory in result.memories:
        assert jax.tree.map(jnp.shape, memory) == jax.tree.map(jnp.shape, roll.fresh)
    assert {logits.shape for logits in result.logits} == {(1, 16, 16, 3)}
    assert result.repeated.shape == (1, 16, 16, 3)
    assert result.features.shape[:3] == (1, 4, 4)
