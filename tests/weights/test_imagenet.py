"""ImageNet weights: the shipped ones, and imports from Keras and torchvision."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from dmnet_jax.nn.mobilenet import STAGES, MobileNetV2
from dmnet_jax.weights.files import read_metadata, write_safetensors
from dmnet_jax.weights.imagenet import (
    SHIPPED,
    clipped_moments,
    from_keras,
    from_torchvision,
    initialize,
    read_backbone,
)
from dmnet_jax.weights.layout import WeightsError, flatten

Arrays = dict[str, np.ndarray]


def _norms(channels: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Scale, bias, mean, variance."""
    normal = generator.normal(size=(4, channels)).astype(np.float32)
    return [1 + 0.1 * normal[0], 0.5 * normal[1], 0.1 * normal[2], np.exp(normal[3])]


def _layers() -> list[tuple[int, str, tuple[int, int, int, int], int, int]]:
    """(block, layer, HWIO shape, groups, stride), without an expansion in block 0."""
    layers = [(-1, "stem", (3, 3, 3, 32), 1, 2)]
    block, channels = 0, 32
    for expansion, features, repeats, stride in STAGES:
        for repeat in range(repeats):
            hidden = channels * expansion
            if block:
                layers.append((block, "expand", (1, 1, channels, hidden), 1, 1))
            step = stride if repeat == 0 else 1
            layers.append((block, "depthwise", (3, 3, 1, hidden), hidden, step))
            layers.append((block, "project", (1, 1, hidden, features), 1, 1))
            block, channels = block + 1, features
    return layers


@pytest.fixture(scope="module")
def plain() -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """A random kernel and batch norm for each layer of Keras and torchvision."""
    generator = np.random.default_rng(3)
    drawn = []
    for _, _, shape, _, _ in _layers():
        kernel = generator.normal(size=shape) * math.sqrt(2 / math.prod(shape[:3]))
        drawn.append((kernel.astype(np.float32), _norms(shape[3], generator)))
    return drawn


def _keras(plain: list) -> Arrays:
    arrays: Arrays = {"Conv_1/kernel": np.zeros((1, 1, 320, 1280), np.float32)}
    for (block, layer, *_), (kernel, norm) in zip(_layers(), plain, strict=True):
        prefix = f"block_{block}_{layer}" if block else f"expanded_conv_{layer}"
        names = (f"{prefix}/kernel", f"{prefix}_BN/")
        if layer == "stem":
            names = ("Conv1/kernel", "bn_Conv1/")
        elif layer == "depthwise":
            names = (f"{prefix}/depthwise_kernel", names[1])
            kernel = kernel.transpose(0, 1, 3, 2)
        arrays[names[0]] = kernel
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        arrays |= {names[1] + part: x for part, x in zip(parts, norm, strict=True)}
    return arrays


def _torchvision(plain: list) -> Arrays:
    places = {"expand": ("0.0", "0.1"), "depthwise": ("1.0", "1.1")}
    places["project"] = ("2", "3")
    first = {"depthwise": ("0.0", "0.1"), "project": ("1", "2")}
    state: Arrays = {"classifier.1.bias": np.zeros(1000, np.float32)}
    for (block, layer, *_), (kernel, norm) in zip(_layers(), plain, strict=True):
        if layer == "stem":
            conv, bn = "features.0.0", "features.0.1"
        else:
            place = (places if block else first)[layer]
            conv, bn = (f"features.{block + 1}.conv.{p}" for p in place)
        state[f"{conv}.weight"] = kernel.transpose(3, 2, 0, 1)
        parts = ("weight", "bias", "running_mean", "running_var")
        state |= {f"{bn}.{part}": x for part, x in zip(parts, norm, strict=True)}
        state[f"{bn}.num_batches_tracked"] = np.array(3)
    return state


def _reference(x: Array, plain: list, padding: str, epsilon: float) -> list[Array]:
    """Block outputs by plain convolutions, with no expansion in block 0."""
    outputs: list[Array] = []
    current, residual = x, None
    for (block, layer, _, groups, stride), (kernel, norm) in zip(
        _layers(), plain, strict=True
    ):
        if layer == ("expand" if block > 0 else "depthwise"):
            residual = current
        side = kernel.shape[0] // 2
        pads = "SAME" if padding == "keras" else [(side, side)] * 2
        y = lax.conv_general_dilated(
            current,
            kernel,
            (stride, stride),
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        scale, bias, mean, variance = norm
        y = (y - mean) / jnp.sqrt(variance + epsilon) * scale + bias
        if layer != "project":
            current = jnp.clip(y, 0, 6)
            continue
        assert residual is not None
        current = y + residual if y.shape == residual.shape else y
        outputs.append(current)
    return outputs


def _outputs(variables: dict, padding: str, epsilon: float, x: np.ndarray) -> list:
    network = MobileNetV2(padding, epsilon)  # pyright: ignore[reportArgumentType]

    @jax.jit
    def run(variables: dict) -> dict:
        _, state = network.apply(
            variables,
            x,
            train=False,
            capture_intermediates=lambda module, _: (module.name or "")[:5] == "block",
            mutable="intermediates",
        )
        return dict(state["intermediates"])

    outputs = run(variables)
    return [outputs[f"block{i}"]["__call__"][0] for i in range(17)]


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_imported_encoder_equals_the_original(plain: list, framework: str) -> None:
    x = np.random.default_rng(0).normal(size=(1, 32, 64, 3)).astype(np.float32)
    if framework == "keras":
        variables, epsilon = from_keras(_keras(plain)), 1e-3
    else:
        variables, epsilon = from_torchvision(_torchvision(plain)), 1e-5
    ours = _outputs(variables, framework, epsilon, x)
    theirs = jax.jit(_reference, static_argnums=(2, 3))(x, plain, framework, epsilon)
    for block, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(
            a, b, atol=2e-4 * float(jnp.abs(b).max()), err_msg=f"block {block}"
        )


def test_shipped_stem_passes_the_first_expansion_unchanged() -> None:
    backbone, framework = read_backbone(SHIPPED)
    assert framework == "keras"
    x = np.random.default_rng(0).uniform(0, 6, (1, 64, 64, 32)).astype(np.float32)
    params = backbone["params"]["block0"]
    stats = backbone["batch_stats"]["block0"]["expand_norm"]
    y = x @ params["expand"]["kernel"][0, 0]
    y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-3)
    y = y * params["expand_norm"]["scale"] + params["expand_norm"]["bias"]
    np.testing.assert_allclose(np.clip(y, 0, 6), x, atol=3e-6)


def test_batch_statistics_hardly_change_the_shipped_first_expansion() -> None:
    """Normal noise after the stem's norm has the stored statistics."""
    backbone, _ = read_backbone(SHIPPED)
    norm = backbone["params"]["stem_norm"]
    stats = backbone["batch_stats"]["block0"]["expand_norm"]
    noise = np.random.default_rng(0).normal(size=(200_000, 32))
    y = np.clip(noise * norm["scale"] + norm["bias"], 0, 6)
    np.testing.assert_allclose(y.mean(0), stats["mean"], atol=0.02)
    np.testing.assert_allclose(y.var(0), stats["var"], atol=0.05)


def test_clipped_moments_agree_with_the_closed_form() -> None:
    means = np.array([-3.0, -0.5, 0.0, 1.0, 4.0, 6.0, 9.0, 2.0])
    deviations = np.array([1.0, 0.3, 1.0, 2.0, 1.5, 0.1, 2.0, 0.0])
    first, variance = clipped_moments(means, deviations)

    def density(z: float) -> float:
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def below(z: float) -> float:
        return (1 + math.erf(z / math.sqrt(2))) / 2

    for i, (m, s) in enumerate(zip(means, deviations, strict=True)):
        s = max(s, 1e-9)
        low, high = -m / s, (6 - m) / s
        inside, above = below(high) - below(low), 1 - below(high)
        e1 = m * inside + s * (density(low) - density(high)) + 6 * above
        e2 = (m * m + s * s) * inside + 36 * above
        e2 += s * (
            (2 * m + s * low) * density(low) - (2 * m + s * high) * density(high)
        )
        assert first[i] == pytest.approx(e1, abs=1e-6)
        assert variance[i] == pytest.approx(e2 - e1 * e1, abs=1e-5)


def test_a_channel_that_is_always_clipped_stays_finite(plain: list) -> None:
    arrays = _keras(plain)
    arrays["bn_Conv1/gamma"] = np.zeros(32, np.float32)
    arrays["bn_Conv1/beta"] = np.full(32, -1, np.float32)
    flat = flatten(from_keras(arrays))
    assert all(np.isfinite(array).all() for array in flat.values())
    assert (flat["batch_stats/block0/expand_norm/var"] > 0).all()
    assert (flat["params/block0/expand_norm/scale"] > 0).all()


@pytest.mark.parametrize(
    "name",
    ["Conv1/kernel", "block_7_depthwise_BN/beta", "expanded_conv_project/kernel"],
)
def test_a_missing_keras_array_is_named(plain: list, name: str) -> None:
    arrays = _keras(plain)
    del arrays[name]
    with pytest.raises(WeightsError, match=f"Keras.* lacks {name}"):
        from_keras(arrays)


def test_strange_arrays_are_named(plain: list) -> None:
    with pytest.raises(WeightsError, match="block_17_expand/kernel"):
        from_keras(_keras(plain) | {"block_17_expand/kernel": np.zeros(1)})
    with pytest.raises(WeightsError, match="features.19.weight"):
        from_torchvision(_torchvision(plain) | {"features.19.weight": np.zeros(1)})


@pytest.fixture(scope="module")
def variables() -> dict:
    encoder = MobileNetV2()
    shapes = jax.eval_shape(
        lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
        jax.random.key(0),
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return {
        "params": {"backbone": zeros["params"], "decoder": {"kernel": jnp.ones(3)}},
        "batch_stats": {"backbone": zeros["batch_stats"]},
        "thresholds": {"min_confidence": jnp.float32(-1)},
    }


def test_initialize_replaces_only_the_encoder(variables: dict) -> None:
    new = initialize(variables, "imagenet", encoder="keras")
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    assert new["params"]["decoder"] is variables["params"]["decoder"]
    assert new["thresholds"] is variables["thresholds"]
    shipped, _ = read_backbone(SHIPPED)
    for collection in ("params", "batch_stats"):
        expected = flatten(shipped[collection])
        for name, array in flatten(new[collection]["backbone"]).items():
            np.testing.assert_array_equal(array, expected[name])
    assert not np.any(variables["params"]["backbone"]["stem"]["kernel"])
    assert initialize(variables, "none", encoder="keras") == variables


def test_initialize_reads_every_kind_of_file(
    variables: dict, plain: list, tmp_path: Path
) -> None:
    arrays: dict = _keras(plain)
    np.savez(tmp_path / "keras.npz", **arrays)
    from_npz = initialize(variables, str(tmp_path / "keras.npz"), encoder="keras")
    backbone = {n: {"backbone": x} for n, x in from_keras(_keras(plain)).items()}
    write_safetensors(tmp_path / "ours.safetensors", backbone, {"encoder": "keras"})
    ours = initialize(variables, str(tmp_path / "ours.safetensors"), encoder="keras")
    jax.tree.map(np.testing.assert_array_equal, from_npz, ours)
    write_safetensors(tmp_path / "torch.safetensors", _torchvision(plain), {})
    torch = initialize(variables, str(tmp_path / "torch.safetensors"), encoder="torch")
    np.testing.assert_array_equal(
        torch["params"]["backbone"]["block3"]["depthwise"]["kernel"],
        ours["params"]["backbone"]["block3"]["depthwise"]["kernel"],
    )


def test_initialize_names_the_problem(
    variables: dict, plain: list, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="of a keras encoder.*encoder='keras'"):
        initialize(variables, "imagenet", encoder="torch")
    with pytest.raises(FileNotFoundError, match="imagnet: no such file"):
        initialize(variables, "imagnet", encoder="keras")
    write_safetensors(tmp_path / "a.safetensors", {"w": np.zeros(1)}, {})
    with pytest.raises(WeightsError, match="a.safetensors: not MobileNetV2"):
        initialize(variables, str(tmp_path / "a.safetensors"), encoder="keras")
    arrays: dict = _keras(plain)
    arrays["block_3_expand/kernel"] = arrays["block_3_expand/kernel"][..., :100]
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(WeightsError, match="block3/expand/kernel in .*b.npz"):
        initialize(variables, str(tmp_path / "b.npz"), encoder="keras")


def test_shipped_weights_name_their_source() -> None:
    notes = read_metadata(SHIPPED)
    assert notes["encoder"] == "keras"
    assert "Keras Applications" in notes["origin"]
    assert "Apache-2.0" in notes["licence"]
    assert SHIPPED.with_name(SHIPPED.name + ".sha256").is_file()
    assert SHIPPED.with_name("LICENSE-APACHE").is_file()
