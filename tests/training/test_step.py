"""The training step: parameters it changes, parameters it keeps, and its metrics."""

import jax
import numpy as np
import optax
import pytest

from dmnet_jax.config import OptimConfig
from dmnet_jax.metrics import frame_counts
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.training import (
    MEMORY_MODULES,
    create_state,
    make_optimizer,
    pixel_counts,
    split_params,
    summarize_metrics,
)
from tests.support.tiny_run import clips, linear, network, plain_step, shallow, stage

# The memory modules of the tiny network: all of the paper's.
CORRECTING_MODULES = {"mask_memory", "prediction_state"}
PAPER_MODULES = set(MEMORY_MODULES) - CORRECTING_MODULES


@pytest.fixture(scope="module", autouse=True)
def shallow_network():
    with shallow():
        yield


def fresh():
    return create_state(network()[1], linear(), key=jax.random.key(3))


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def changed(before, after):
    """Returns the names of the leaves that are not bit-identical."""
    before, after = flat(before), flat(after)
    assert before.keys() == after.keys()
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def test_steps_lower_the_loss_of_a_fixed_batch():
    state, step, losses = fresh(), plain_step("all"), []
    for _ in range(5):
        state, metrics = step(state, clips())
        losses.append(summarize_metrics(jax.device_get(metrics))["loss"])
    assert int(state.step) == 5 and int(state.skipped) == 0
    assert losses[-1] < 0.9 * losses[0]


def test_part_all_trains_every_parameter():
    state = fresh()
    after, metrics = plain_step("all")(state, clips())
    assert float(metrics["grad_norm"]) > 0
    unchanged = flat(state.variables["params"]).keys() - changed(
        state.variables["params"], after.variables["params"]
    )
    assert not unchanged
    assert changed(state.variables["batch_stats"], after.variables["batch_stats"])
    assert not changed(state.variables["thresholds"], after.variables["thresholds"])


@pytest.mark.parametrize("part", ["memory", "single_frame"])
def test_frozen_parts_stay_bit_identical(part):
    state = fresh()
    # Two steps, to reveal parameters that weight decay or momentum would change.
    after = state
    for _ in range(2):
        after, metrics = plain_step(part)(after, clips())
    assert np.isfinite(float(metrics["loss"])) and int(after.skipped) == 0
    before, new = state.variables["params"], after.variables["params"]
    moved = {name for name in before if changed(before[name], new[name])}
    inside = {name for name in before if name in MEMORY_MODULES}
    assert inside == PAPER_MODULES
    assert moved == (inside if part == "memory" else before.keys() - inside)
    statistics = changed(state.variables["batch_stats"], after.variables["batch_stats"])
    assert bool(statistics) == (part == "single_frame")


def test_split_params_covers_and_never_overlaps():
    params = network()[1]["params"]
    for part in ("all", "memory", "single_frame"):
        trained, frozen = split_params(params, part)
        assert {**trained, **frozen} == dict(params)
        assert not trained.keys() & frozen.keys()
        expected = {"all": set(), "memory": params.keys() - PAPER_MODULES}
        assert frozen.keys() == expected.get(part, PAPER_MODULES)


def test_modules_of_the_memory_can_be_trained_alone():
    names = ["backbone", "decoder", "mask_memory", "prediction_state"]
    params = {name: {} for name in names}
    for part, module in (("state", "prediction_state"), ("masks", "mask_memory")):
        trained, frozen = split_params(params, part)
        assert trained.keys() == {module}
        assert frozen.keys() == params.keys() - {module}


def test_memory_modules_are_those_that_a_single_frame_does_not_have():
    model = DMNet.tiny(3, local="none", global_values="masks", state=True)

    def names(model):
        memory = model.init_memory(1, (32, 32), jax.random.key(0))
        frames = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), np.uint8)
        shapes = jax.eval_shape(model.init, jax.random.key(0), memory, frames)
        return shapes["params"].keys()

    assert names(model) - names(model.single_frame()) == CORRECTING_MODULES


def test_a_loss_that_is_not_finite_changes_only_counters():
    state = fresh()
    params = dict(state.variables["params"])
    params["decoder"] = jax.tree.map(lambda x: x * np.nan, params["decoder"])
    state = state.replace(variables={**state.variables, "params": params})
    after, metrics = plain_step("all")(state, clips())
    assert np.isnan(float(metrics["loss"]))
    assert not changed(state.variables, after.variables)
    assert not changed(state.opt_state, after.opt_state)
    assert (int(after.step), int(after.skipped), int(metrics["skipped"])) == (1, 1, 1)
    again, _ = plain_step("all")(after, clips())
    assert (int(again.step), int(again.skipped)) == (2, 2)
    assert int(again.skipped_in_a_row) == 2
    repaired = again.replace(variables=fresh().variables)
    healthy, metrics = plain_step("all")(repaired, clips())
    assert (int(healthy.skipped), int(metrics["skipped_in_a_row"])) == (2, 0)


def test_ignored_pixels_have_no_loss_and_no_gradient():
    state, batch = fresh(), clips()
    batch["label"] = np.full_like(batch["label"], 255)
    _, metrics = plain_step("all")(state, batch)
    assert float(metrics["loss"]) == 0 and float(metrics["grad_norm"]) == 0
    assert not np.asarray(metrics["counts"]).any()

    batch = clips()
    batch["label"][:, :32] = 255
    _, metrics = plain_step("all")(state, batch)
    counts = np.asarray(metrics["counts"])
    assert counts[:, 1].sum() == counts[:, 2].sum() == 4 * 32 * 64
    for c in range(3):
        assert counts[c, 2] == (batch["label"] == c).sum()


def test_pixel_counts_equal_those_of_the_metrics():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 8, 9, 4)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 255], (3, 8, 9)).astype(np.uint8)
    expected = sum(
        frame_counts(one.argmax(-1), label, 4)
        for one, label in zip(logits, labels, strict=True)
    )
    np.testing.assert_array_equal(pixel_counts(logits, labels), expected)


def test_summaries_are_means_over_rows_and_present_foreground():
    counts = np.array([[90, 95, 92], [4, 6, 8], [0, 3, 0]])
    metrics = {"loss": 6.0, "rows": 4.0, "counts": counts, "grad_norm": 2.0}
    metrics |= {"lr": 0.5, "skipped": 1, "admitted": np.array([3, 4])}
    values = {"loss": 1.5, "lr": 0.5, "grad_norm": 2.0, "batch_iou": 0.4, "skipped": 1}
    assert summarize_metrics(metrics) == {**values, "admitted": 0.75}
    assert summarize_metrics({**metrics, "admitted": np.array([0, 0])}) == values


def test_optimizer_is_adam_with_l2_on_kernels_in_the_gradient():
    """Compares with torch.optim.Adam's rule, schedule and warm-up in float64."""
    optim = OptimConfig(
        lr=1e-2,
        weight_decay=0.3,
        drop_epochs=(1, 2),
        drop_factor=0.1,
        warmup_steps=3,
    )
    tx = make_optimizer(optim, stage(steps_per_epoch=4, lr_scale=0.5))
    rng = np.random.default_rng(0)
    params = {
        "layer": {name: rng.normal(size=5) for name in ("kernel", "bias", "scale")}
    }
    expected = {name: x.copy() for name, x in params["layer"].items()}
    first = {name: np.zeros(5) for name in expected}
    second = {name: np.zeros(5) for name in expected}
    params = jax.tree.map(np.float32, params)
    state, update = tx.init(params), jax.jit(tx.update)
    for t in range(10):
        gradient = {name: rng.normal(size=5) for name in expected}
        lr = 0.5e-2 * min(1, (t + 1) / 3) * (0.1 if t >= 4 else 1)
        lr *= 0.1 if t >= 8 else 1
        for name, g in gradient.items():
            if name == "kernel":
                g = g + 0.3 * expected[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            mean = first[name] / (1 - 0.9 ** (t + 1))
            square = second[name] / (1 - 0.999 ** (t + 1))
            expected[name] -= lr * mean / (np.sqrt(square) + 1e-8)
        gradient = jax.tree.map(np.float32, {"layer": gradient})
        updates, state = update(gradient, state, params)
        stored = optax.tree.get(state[-1].hyperparams, "learning_rate")
        np.testing.assert_allclose(stored, lr, rtol=1e-6)
        params = optax.apply_updates(params, updates)
        for name in expected:
            np.testing.assert_allclose(
                params["layer"][name], expected[name], rtol=2e-5, atol=2e-6
            )


def test_the_gradient_is_clipped_before_weight_decay():
    optim = OptimConfig(lr=1.0, weight_decay=0.0, clip_norm=1.0)
    params = {"layer": {"kernel": np.zeros(2, np.float32)}}
    tx = make_optimizer(optim, stage())
    gradient = {"layer": {"kernel": np.float32([30, 40])}}
    _, state = tx.update(gradient, tx.init(params), params)
    (adam,) = [
        part
        for part in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu"))
        if hasattr(part, "mu")
    ]
    np.testing.assert_allclose(adam.mu["layer"]["kernel"], [0.06, 0.08], rtol=1e-5)
