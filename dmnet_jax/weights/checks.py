"""Checks that imported weights give the same results as in their original framework."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from dmnet_jax.models.dmnet import DMNet, Local
from dmnet_jax.models.protocol import ClipBatch
from dmnet_jax.nn.layers import relu6
from dmnet_jax.nn.mobilenet import MobileNetV2, normalize
from dmnet_jax.weights.authors import from_authors
from dmnet_jax.weights.files import read_weights
from dmnet_jax.weights.imagenet import EPSILON, SHIPPED, read_backbone
from dmnet_jax.weights.layout import WeightsError

# Maximum difference relative to the maximum value. For the authors' runs, the ratio of
# root mean squares: those runs are float32, so single values differ by up to 2e-4 from
# the same network in float64, which they are compared with.
TOLERANCE = 1e-4
PROBABILITY_TOLERANCE = 1e-3


_LAST = (
    "Conv_1/kernel",
    "Conv_1_bn/moving_mean",
    "Conv_1_bn/moving_variance",
    "Conv_1_bn/gamma",
    "Conv_1_bn/beta",
)

Precision = Literal["float32", "float64"]


class Variant(NamedTuple):
    """Fields of a variant of the release.

    Attributes:
        local: see `DMNet`.
        past: number of first frames that are put into the global memory.
    """

    local: Local
    past: int


VARIANTS = {
    "single_frame": Variant("none", 0),
    "temporal_btnlstm": Variant("blstm", 0),
    "temporal_convlstm": Variant("clstm", 0),
    "effla_btnlstm": Variant("ela", 0),
    "spatial_global4": Variant("none", 4),
    "dmnet_btnlstm": Variant("blstm", 4),
    "dmnet_convlstm": Variant("clstm", 4),
}


class Difference(NamedTuple):
    """Difference between a map and its reference.

    Attributes:
        model: name of the model or photo.
        name: name of the map.
        absolute: maximum difference.
        relative: maximum difference relative to the reference's maximum magnitude.
        rms: root mean square of the difference relative to that of the reference.
    """

    model: str
    name: str
    absolute: float
    relative: float
    rms: float


class Guess(NamedTuple):
    """One of a photo's top-5 classes, and the expected class at this rank."""

    photo: str
    label: str
    expected_label: str
    probability: float
    expected: float

    @property
    def agrees(self) -> bool:
        """Whether class and probability (within `PROBABILITY_TOLERANCE`) match."""
        close = abs(self.probability - self.expected) <= PROBABILITY_TOLERANCE
        return close and self.label == self.expected_label


def read_index(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads the records of `folder/index.json` by model name.

    A record has `seed`, `classes`, `batch`, `frames`, `height`, `width` and
    `state_dict`, a list of [PyTorch name, shape].

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: a record is invalid, or a model is not in `VARIANTS`.
    """
    path = folder / "index.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        index = json.loads(path.read_bytes())
        names = [name for name in index if isinstance(index[name], dict)]
        if len(names) < len(index):
            raise ValueError("a record is not a JSON object")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: not an index of models: {error}") from error
    if unknown := [name for name in names if name not in VARIANTS]:
        raise WeightsError(
            f"{path}: unknown model {unknown[0]}; known models are {[*VARIANTS]}"
        )
    fields = {"seed", "classes", "batch", "frames", "height", "width", "state_dict"}
    for name, record in index.items():
        if missing := fields - set(record):
            raise WeightsError(f"{path}: {name} lacks {sorted(missing)}")
    return index


def draw_state(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draws the random weights of the reference runs, as a state dict.

    The i-th array is drawn from NumPy's legacy generator with seed `seed + i`.
    Statistics are near 0 and 1, and convolutions preserve the scale of their input (He
    et al.).
    """
    state: dict[str, np.ndarray] = {}
    for i, (name, shape) in enumerate(record["state_dict"]):
        if name.endswith(".num_batches_tracked"):
            state[name] = np.zeros(shape, np.int64)
            continue
        n = np.random.RandomState(record["seed"] + i).standard_normal(shape)
        if name.endswith(".running_var"):
            n = np.exp(0.2 * n)
        elif len(shape) == 4:
            n = n * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(".weight"):
            n = 1 + 0.1 * n
        else:
            n = 0.1 * n
        state[name] = n.astype(np.float32)
    return state


def draw_frames(record: Mapping[str, Any]) -> np.ndarray:
    """Draws the normalized input of the reference runs: float32 [B, T, 3, H, W]."""
    shape = [record[name] for name in ("batch", "frames")]
    shape += [3, record["height"], record["width"]]
    generator = np.random.RandomState(record["seed"] + 100000)
    return generator.standard_normal(shape).astype(np.float32)


def run_variant(
    name: str, record: Mapping[str, Any], dtype: Precision = "float64"
) -> dict[str, np.ndarray]:
    """Imports random weights and runs `DMNet.clip` on random frames.

    In float64, the remaining difference is the rounding of the reference itself. Not
    every GPU supports float64 matrix products.

    Returns:
        Maps [B, C, h, w] named as in the reference: `logits`, `enc_l3` to `enc_l7` of
        the last frame, and `lstm` and `memory` if the variant has them.
    """
    variant = VARIANTS[name]
    model = DMNet(
        num_classes=record["classes"],
        local=variant.local,
        global_memory=variant.past > 0,
        local_size=max(1, record["frames"] - variant.past - 1),
        num_reads=max(1, variant.past),
        encoder="torch",
        dtype=jnp.dtype(dtype),
    )
    # By default, GPUs compute float32 products in TF32, with a 10-bit mantissa.
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        return _maps_of(model, variant, record)


def _maps_of(
    model: DMNet, variant: Variant, record: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    variables = from_authors(draw_state(record), model=model)
    frames = draw_frames(record).transpose(0, 1, 3, 4, 2)
    past, window = map(jnp.asarray, np.split(frames, [variant.past], axis=1))
    masks = [jnp.ones(x.shape[:2], bool) for x in (window, past)]

    @jax.jit
    def run(variables: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
        output, state = model.apply(
            variables,
            ClipBatch(window, masks[0], past, masks[1]),
            jax.random.key(0),
            method="clip",
            capture_intermediates=lambda module, method: (
                method == "encode" or module.name in ("recurrent", "attend")
            ),
            mutable="intermediates",
        )
        return output.logits, dict(state["intermediates"])

    variables = jax.tree.map(lambda x: np.asarray(x, model.dtype), variables)
    logits, intermediates = run(variables)
    current = intermediates["encode"][0]
    maps = {
        "logits": logits,
        "enc_l3": current.quarter,
        "enc_l4": current.eighth,
        "enc_l5": current.sixteenth_64,
        "enc_l6": current.sixteenth_96,
        "enc_l7": current.top,
    }
    for ours, theirs in (("recurrent", "lstm"), ("attend", "memory")):
        if ours in intermediates:
            maps[theirs] = intermediates[ours]["__call__"][0]
    return {name: np.asarray(x).transpose(0, 3, 1, 2) for name, x in maps.items()}


def check_authors(
    folder: Path, name: str, dtype: Precision = "float64"
) -> list[Difference]:
    """Compares one model, run in `dtype`, with `folder/NAME.npz`, map by map.

    Raises:
        FileNotFoundError: there is no such reference.
        WeightsError: the reference has a map that the model does not have.
    """
    record = read_index(folder)[name]
    reference = read_weights(folder / f"{name}.npz")
    maps = run_variant(name, record, dtype)
    differences = []
    for map_name, expected in reference.items():
        # Logits with a known defect of the release; not reproduced here.
        if map_name == "logits_as_released":
            continue
        if map_name not in maps:
            raise WeightsError(f"{folder / name}.npz: no map {map_name} in the model")
        differences.append(_difference(name, map_name, maps[map_name], expected))
    return differences


def check_imagenet(
    folder: Path, weights: Path = SHIPPED
) -> tuple[list[Guess], list[Difference]]:
    """Classifies the folder's photos with the encoder and the folder's classifier.

    Args:
        folder: folder with `mobilenet_v2_1.0_224_notop.npz` (for the last convolution),
            `imagenet_head_dequantised.npz`, `imagenet_labels_1001.txt` and `photos/`
            with `expected_top5.json` and `expected_features.npz`.
        weights: weights of the encoder.

    Raises:
        FileNotFoundError: a file is missing.
        WeightsError: a file is damaged.
    """
    top5_path = folder / "photos" / "expected_top5.json"
    labels_path = folder / "imagenet_labels_1001.txt"
    for path in (top5_path, labels_path):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    expected_top5 = json.loads(top5_path.read_text())
    labels = labels_path.read_text().splitlines()
    expected = read_weights(folder / "photos" / "expected_features.npz")
    head = _read(folder / "imagenet_head_dequantised.npz", ("kernel", "bias"))
    last = _read(folder / "mobilenet_v2_1.0_224_notop.npz", _LAST)
    variables, framework = read_backbone(weights)
    if framework != "keras":
        raise WeightsError(
            f"{weights}: weights of a {framework} encoder; the photos' reference is "
            "for Keras"
        )
    encoder = MobileNetV2("keras", EPSILON["keras"])

    @jax.jit
    def run(frames: Array) -> dict[str, Array]:
        outputs, state = encoder.apply(
            variables,
            normalize(frames, "keras"),
            train=False,
            capture_intermediates=lambda module, _: (module.name or "")[:5] == "block",
            mutable="intermediates",
        )
        kernel, mean, variance, gamma, beta = (last[name] for name in _LAST)
        y = outputs[-1] @ kernel[0, 0] - mean
        y *= gamma / np.sqrt(variance + EPSILON["keras"])
        y = relu6(y + beta)
        blocks: dict[str, Any] = dict(state["intermediates"])
        means = {
            f"{name}_mean": block["__call__"][0].mean((1, 2))
            for name, block in blocks.items()
        }
        return means | {"pooled1280": y.mean((1, 2))}

    photos = [_photo(folder / "photos" / f"{name}.png") for name in expected_top5]
    features = jax.tree.map(np.asarray, run(jnp.stack(photos)))
    guesses, differences = [], []
    for i, (photo, best) in enumerate(expected_top5.items()):
        pooled = features["pooled1280"][i]
        scores = pooled @ head["kernel"].astype(np.float32) + head["bias"]
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities)
        guesses += [
            Guess(photo, labels[k], labels[expected_class], float(probabilities[k]), p)
            for k, (expected_class, _, p) in zip(order[: len(best)], best, strict=True)
        ]
        differences += [
            _difference(photo, name, features[name][i], expected[f"{photo}/{name}"])
            for name in features
            if f"{photo}/{name}" in expected
        ]
    return guesses, differences


def _difference(
    model: str, name: str, actual: np.ndarray, expected: np.ndarray
) -> Difference:
    if actual.shape != expected.shape:
        raise WeightsError(
            f"{model}: {name} has shape {actual.shape}; expected {expected.shape}"
        )
    error = actual - expected
    absolute = float(np.abs(error).max())
    relative = absolute / float(np.abs(expected).max())
    rms = float(np.sqrt(np.mean(error**2) / np.mean(expected**2)))
    return Difference(model, name, absolute, relative, rms)


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    arrays = read_weights(path)
    if missing := [name for name in names if name not in arrays]:
        raise WeightsError(f"{path} lacks {missing[0]}")
    return arrays


def _photo(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
