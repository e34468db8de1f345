"""Learning from the predictions of another network."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dmnet_jax.models.forward import clip
from dmnet_jax.streaming import TrainedRun
from dmnet_jax.training import distillation, forward_loss
from dmnet_jax.training.distillation import distillation_loss, load_teacher, teacher_of
from dmnet_jax.training.initial import initial_variables
from dmnet_jax.weights.layout import flatten
from tests.support import tiny_run
from tests.support.tiny_run import clips, network, shallow, tiny_config


@pytest.fixture(scope="module", autouse=True)
def shallow_network():
    with shallow():
        yield


def test_the_loss_is_the_divergence_of_the_probabilities():
    rng = np.random.default_rng(0)
    logits, teacher = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    q, p = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (logits, teacher))
    expected = (p * np.log(p / q)).sum(-1).mean()
    assert float(distillation_loss(logits, teacher)) == pytest.approx(expected)
    assert float(distillation_loss(logits, logits + 3)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="same classes"):
        distillation_loss(logits, teacher[..., :4])


def test_the_divergence_is_added_to_the_loss_and_the_teacher_is_not_trained():
    model, variables = network()
    model, optim = model.single_frame(), tiny_config().optim
    optim = replace(optim, distillation_weight=3.0)
    # The teacher is the same network with a preference for class 1.
    params = dict(variables["params"])
    classifier = dict(params["decoder"]["classifier"])
    classifier["bias"] = classifier["bias"] + np.float32([0, 2, -2])
    params["decoder"] = {**params["decoder"], "classifier": classifier}
    teacher = teacher_of(model, {**variables, "params": params}, clip)
    key, batch = jax.random.key(0), clips()

    @jax.jit
    def losses(variables):
        results = [
            forward_loss(
                *(variables, batch, key),
                model=model,
                forward=clip,
                optim=optim,
                teacher=chosen,
            )
            for chosen in (None, teacher)
        ]
        output = model.apply(variables, batch, key, method=clip, train=True)
        divergence = distillation_loss(output.logits, teacher(batch, key))
        return *(loss for loss, _ in results), divergence

    plain, taught, divergence = map(float, losses(variables))
    assert divergence > 0.1
    assert taught == pytest.approx(plain + 3.0 * divergence, rel=1e-5)


def test_no_gradient_reaches_the_teacher():
    class Bias(nn.Module):
        @nn.compact
        def __call__(self, batch, key, *, train, truncate):
            bias = self.param("bias", nn.initializers.ones, (3,))
            logits = batch["frames"] * bias
            return SimpleNamespace(logits=logits)

    batch = {"frames": np.ones((2, 4, 4, 3), np.float32)}
    call = Bias.__call__
    variables = {"params": {"bias": jnp.float32([1, 2, 3])}}

    def total(variables):
        return teacher_of(Bias(), variables, call)(batch, jax.random.key(0)).sum()

    value, gradient = jax.value_and_grad(total)(variables)
    assert float(value) == 2 * 16 * 6
    assert not np.any(gradient["params"]["bias"])


def test_a_narrower_network_starts_from_the_encoder_of_its_teacher():
    config = tiny_config()
    model, variables = network()
    narrow = replace(config, model=replace(config.model, width=64, value_channels=32))
    student = model.single_frame().clone(width=64, value_channels=32)
    variables = jax.tree.map(lambda x: x + 1.0, variables)
    initial = flatten(initial_variables(student, narrow, variables))
    saved = flatten(variables)
    equal = {n for n in initial if np.array_equal(initial[n], saved[n])}
    assert {n for n in initial if "/backbone/" in n} <= equal
    different = {n for n in initial if initial[n].shape != saved[n].shape}
    assert different and not different & equal


def test_the_teacher_is_a_single_frame_network_with_the_same_classes(monkeypatch):
    config = tiny_config()
    config = replace(config, train=replace(config.train, teacher="runs/wide"))
    opened = []

    def load_run(run, *, memory):
        opened.append((run, memory))
        return TrainedRun(*network(), tiny_run.tiny_config(), {})

    monkeypatch.setattr(distillation, "load_run", load_run)
    model, variables = load_teacher(config)
    assert opened == [("runs/wide", False)] and variables is network()[1]
    other = replace(config, data=replace(config.data, num_classes=2))
    with pytest.raises(ValueError, match="runs/wide has 3 classes.*num_classes, 2"):
        load_teacher(other)
