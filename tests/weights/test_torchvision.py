"""Weights of torchvision classifiers in the encoders of the compared networks."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from dmnet_jax import models
from dmnet_jax.config import Config, DataConfig, ModelConfig, OptimConfig
from dmnet_jax.models.linknet import LinkNet
from dmnet_jax.models.lwanet import LWANet
from dmnet_jax.nn import resnet
from dmnet_jax.training.initial import initial_variables
from dmnet_jax.weights.imagenet import SHIPPED, initialize, read_backbone
from dmnet_jax.weights.layout import WeightsError, flatten
from dmnet_jax.weights.torchvision import resnet_table, vgg_table


def blank(model):
    """The variables of a network, all zero."""
    key = jax.random.key(0)
    memory = model.init_memory(1, (64, 64), key)
    frames = jnp.zeros((1, 1, 64, 64, 3), jnp.uint8)
    shapes = jax.eval_shape(model.init, key, memory, frames)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return {"batch_stats": {}, **zeros}


def classifier(table, variables, path):
    """A state dict of torchvision's with random weights, as a file."""
    rng, flat = np.random.default_rng(0), flatten(variables)
    state = {"fc.weight": np.zeros((2, 2), np.float32)}
    for theirs, ours in table.items():
        kind, _, name = ours.partition("/")
        array = rng.standard_normal(flat[f"{kind}/{name}"].shape).astype(np.float32)
        if theirs.endswith("running_var"):
            array = np.abs(array)
        if array.ndim == 4:
            array = np.ascontiguousarray(array.transpose(3, 2, 0, 1))
        state[theirs] = array
    save_file(state, path)
    return state


def build(name):
    config = Config(model=ModelConfig(name=name), data=DataConfig(size=(64, 64)))
    return models.build(config)


@pytest.mark.parametrize(
    ("name", "table", "at"),
    [
        ("ternausnet16", vgg_table(16), ()),
        ("tapnet11", vgg_table(11), ()),
        ("td2_psp18", resnet_table(resnet.RESNET18), ("branch_1",)),
    ],
)
def test_every_array_is_imported(tmp_path, name, table, at):
    pytest.importorskip("cv2")
    variables = blank(build(name))
    encoder = {}
    for kind, tree in variables.items():
        for step in at:
            tree = tree[step]
        encoder[kind] = tree.get("backbone", {})
    state = classifier(table, encoder, tmp_path / "weights.safetensors")
    result = initialize(
        variables, str(tmp_path / "weights.safetensors"), encoder="torch"
    )
    flat = {}
    for kind, tree in result.items():
        for step in at:
            tree = tree[step]
        flat |= {f"{kind}/{n}": a for n, a in flatten(tree.get("backbone", {})).items()}
    assert flat.keys() == set(table.values())
    for theirs, ours in table.items():
        array = state[theirs]
        expected = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        np.testing.assert_array_equal(flat[ours], expected)


def test_layers_of_vgg_are_counted_with_their_activations():
    assert [n for n in vgg_table(11) if n.endswith("bias")] == [
        f"features.{i}.bias" for i in (0, 3, 6, 8, 11, 13, 16, 18)
    ]
    assert [n for n in vgg_table(16) if n.endswith("bias")] == [
        f"features.{i}.bias" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    ]


def test_another_network_is_refused(tmp_path):
    variables = blank(build("ternausnet11"))
    path = tmp_path / "weights.safetensors"
    kind = {"params": variables["params"]["backbone"]}
    state = classifier(vgg_table(11), kind, path)
    with pytest.raises(WeightsError, match="weights.safetensors lacks layer1"):
        initialize(blank(build("linknet34")), str(path), encoder="torch")
    save_file({**state, "features.1.running_mean": np.zeros(64)}, path)
    with pytest.raises(WeightsError, match="without batch norm"):
        initialize(variables, str(path), encoder="torch")


def test_lwanet_starts_from_the_shipped_encoder_but_for_its_first_expansion():
    variables = blank(LWANet(3))
    result = initialize(variables, "imagenet", encoder="keras")
    shipped, _ = read_backbone(SHIPPED)
    expected = {n: a for n, a in flatten(shipped).items() if "block0/expand" not in n}
    backbone = {kind: tree["backbone"] for kind, tree in result.items()}
    assert flatten(backbone).keys() == expected.keys()
    np.testing.assert_array_equal(
        backbone["params"]["stem"]["kernel"], expected["params/stem/kernel"]
    )


def test_encoder_without_weights_is_logged(caplog):
    config = Config(
        model=ModelConfig(name="lwanet"), optim=OptimConfig(), data=DataConfig()
    )
    with caplog.at_level(logging.WARNING):
        model = models.build(config).clone(num_classes=2)
        assert isinstance(model, LWANet)
        small = LinkNet(2, blocks=(1, 1, 1, 1), width=8)
        named = Config(model=ModelConfig(name="linknet34"))
        variables = initial_variables(small, named)
    assert "linknet34 STARTS FROM RANDOM WEIGHTS" in caplog.text
    assert variables.keys() == {"params", "batch_stats"}
