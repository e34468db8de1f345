"""Cached features equal the loader's clips after encoding."""

from functools import partial

import jax
import numpy as np
import pytest

from data_pipelines.corruption import Corruption
from data_pipelines.frames import IGNORE
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec
from data_pipelines.loading.loader import ClipLoader
from dmnet_jax.models import forward
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.features import DECODED, FEATURES
from dmnet_jax.process import Stopped
from dmnet_jax.training import feature_cache
from dmnet_jax.training.feature_cache import FeatureCache, SequenceCache
from tests.support.random_variables import quick_jit, random_variables
from tests.support.tiny_run import Videos, network, shallow, step_of

KEY = jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def shallow_network():
    with shallow():
        yield


def loader(augment=None):
    return ClipLoader(
        Videos((5, 3), frozenset({1})),
        ClipSpec(local_size=1, num_past=2),
        batch_size=4,
        seed=7,
        augment=augment,
    )


def cache(folder, augment=None, views=1, **options):
    model, variables = network()
    return FeatureCache(
        folder / "features",
        loader(augment),
        views=views,
        model=model,
        variables=variables,
        log=lambda line: None,
        **options,
    )


def test_one_view_equals_the_encoded_clips(tmp_path):
    model, variables = network()
    cached, frames = cache(tmp_path), loader()
    encode = jax.jit(lambda x: model.apply(variables, x, method=DMNet.encode))
    assert cached.steps_per_epoch == frames.steps_per_epoch
    for step, batch in enumerate(cached.iterate(0, 3)):
        clip = frames.batch(step)
        features = encode(clip["frames"][:, -1])
        for name in FEATURES:
            np.testing.assert_allclose(
                batch[name], getattr(features, name), atol=1e-5, rtol=1e-5
            )
        for row in range(4):
            window = encode(clip["frames"][row, :1]).top
            np.testing.assert_allclose(batch["window"][row], window, atol=1e-5)
            past = encode(clip["past"][row]).top
            mask = clip["past_mask"][row]
            np.testing.assert_allclose(batch["past"][row][mask], past[mask], atol=1e-5)
        for name in ("past_mask", "label"):
            np.testing.assert_array_equal(batch[name], clip[name])
        np.testing.assert_array_equal(batch["window_mask"], clip["frames_mask"][:, :1])


def test_a_step_on_features_equals_the_step_on_frames(tmp_path):
    from dmnet_jax.training import create_state
    from tests.support.tiny_run import linear

    state = create_state(network()[1], linear(), key=jax.random.key(3))
    step_on_frames = quick_jit(step_of("memory"))
    step_on_features = quick_jit(step_of("memory", forward=forward.features))
    expected, expected_metrics = step_on_frames(state, loader().batch(0))
    result, metrics = step_on_features(state, cache(tmp_path).batch(0))
    assert float(metrics["loss"]) == pytest.approx(
        float(expected_metrics["loss"]), rel=1e-5
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        result.variables["params"],
        expected.variables["params"],
    )


def test_views_differ_and_are_reproducible(tmp_path):
    augment = Augment(photometric=0.3)
    first = cache(tmp_path, augment, views=3)
    batches = [first.batch(step) for step in range(3)]
    again = cache(tmp_path, augment, views=3)
    for step, batch in enumerate(batches):
        for name, value in again.batch(step).items():
            np.testing.assert_array_equal(value, batch[name])
    unaugmented = cache(tmp_path / "unaugmented")
    same = [
        (batches[step]["label"][row] == unaugmented.batch(step)["label"][row]).all()
        for step in range(3)
        for row in range(4)
    ]
    assert 0 < sum(same) < len(same)
    assert all((batch["label"] != IGNORE).any() for batch in batches)
    first.remove()
    assert not (tmp_path / "features").exists()


def test_a_stop_while_encoding_leaves_no_files(tmp_path):
    chunks = []

    def stop():
        chunks.append(1)
        if len(chunks) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        cache(tmp_path, views=3, on_chunk=stop)
    assert len(chunks) == 2 and not (tmp_path / "features").exists()


def sequences(
    folder, probability, corrupted=1, stride=1, views=1, trained=None, layers=1
):
    model, variables = trained or network()
    source = ClipLoader(
        Videos((9, 7), frozenset({1})),
        ClipSpec(local_size=3, num_past=0, stride=stride, score_all=True),
        batch_size=4,
        seed=7,
        corruption=Corruption(probability, ("black", "defocus"), layers),
    )
    cached = SequenceCache(
        folder / "features",
        source,
        views=views,
        corrupted=corrupted,
        model=model,
        variables=variables,
        log=lambda line: None,
    )
    return cached, source


def test_sequences_without_corruption_equal_the_encoded_clips(tmp_path):
    model, variables = network()
    cached, source = sequences(tmp_path, probability=0.0)
    encode = jax.jit(lambda x: model.apply(variables, x, method=DMNet.encode))
    for step in range(2):
        batch, clip = cached.batch(step), source.batch(step)
        np.testing.assert_array_equal(batch["frames_mask"], clip["frames_mask"])
        np.testing.assert_array_equal(batch["label"], clip["label"])
        features = encode(clip["frames"].reshape(-1, *clip["frames"].shape[2:]))
        for name in FEATURES:
            expected = getattr(features, name).reshape(batch[name].shape)
            mask = clip["frames_mask"]
            assert batch[name].dtype == np.float16
            np.testing.assert_allclose(batch[name][mask], expected[mask], atol=4e-3)


def test_bursts_are_consecutive_frames_after_a_clean_first_frame(tmp_path):
    corrupted, _ = sequences(tmp_path, probability=1.0)
    clean, _ = sequences(tmp_path / "clean", probability=0.0)
    runs = set()
    for step in range(6):
        batch, expected = corrupted.batch(step), clean.batch(step)
        np.testing.assert_array_equal(batch["label"], expected["label"])
        for row in range(4):
            same = [
                (batch["top"][row, t] == expected["top"][row, t]).all()
                for t in range(4)
            ]
            assert same[0] and not all(same)
            changed = [t for t in range(4) if not same[t]]
            assert changed == list(range(changed[0], changed[-1] + 1))
            runs.add(tuple(changed))
    assert len(runs) > 2


def test_corrupted_views_have_all_layers(tmp_path, monkeypatch):
    drawn = []

    def corrupt_layers(frame, layers, **_):
        drawn.append(tuple(layer.kind for layer in layers))
        return frame

    monkeypatch.setattr(feature_cache, "corrupt_layers", corrupt_layers)
    sequences(tmp_path, probability=1.0, layers=2)
    assert set(drawn) == {("black",), ("defocus", "defocus")}


def test_strides_of_sequences_vary_and_are_reproducible(tmp_path):
    first, _ = sequences(tmp_path, probability=0.0, corrupted=0, stride=3)
    masks = [mask for step in range(6) for mask in first.batch(step)["frames_mask"]]
    lengths = {int(mask.sum()) for mask in masks}
    assert len(lengths) > 1
    again, _ = sequences(tmp_path / "again", probability=0.0, corrupted=0, stride=3)
    for name, value in again.batch(3).items():
        np.testing.assert_array_equal(value, first.batch(3)[name])


CORRECTING = {
    "state": {"global_memory": False, "state": True},
    # Not with areas: their logarithms amplify the rounding of the maps to float16.
    "masks": {
        "global_values": "masks",
        "global_size": 4,
        "state": True,
        "state_parts": ("appearance", "age"),
    },
}


@pytest.mark.parametrize("fields", CORRECTING.values(), ids=CORRECTING)
def test_frames_are_decoded_if_no_memory_enters_the_decoder(tmp_path, fields):
    model = DMNet.tiny(network()[0].num_classes, local="none", **fields)
    memory = model.init_memory(1, (64, 64), KEY)
    frames = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), np.uint8)
    variables = random_variables(jax.eval_shape(model.init, KEY, memory, frames))
    variables["thresholds"] = {
        "min_confidence": np.float32(-np.inf),
        "max_similarity": np.float32(np.inf),
    }
    cached, source = sequences(tmp_path, probability=0.0, trained=(model, variables))
    assert cached.recipe == "decoded_sequences"
    batch, clip = cached.batch(0), source.batch(0)
    stored = set(DECODED) - (set() if model.stores_masks else {"fine"})
    assert stored < set(batch)
    assert not {"quarter", "eighth", "fine"} & (set(batch) - stored)
    roll = quick_jit(partial(model.apply, method=forward.rollout, truncate=2))
    result = quick_jit(partial(model.apply, method=forward.decoded_sequences))(
        variables, batch, KEY
    )
    expected = roll(variables, clip, KEY)
    mask = clip["frames_mask"]
    scale = np.abs(expected.logits).max()
    for name, atol in (("logits", 4e-3 * scale), ("trust", 4e-3)):
        pair = (np.asarray(getattr(x, name))[mask] for x in (result, expected))
        np.testing.assert_allclose(*pair, atol=atol)
    np.testing.assert_array_equal(result.admitted, expected.admitted)
    assert (result.admitted == mask).all()
    assert (result.trust[:, 1:] < 1).any() and mask[:, 1:].any()
