"""Import of checkpoints from the authors' PyTorch release (github.com/jcwang123/DMNet).

The release has one key/value projection; its variants use it in different readers:

| release | here |
| --- | --- |
| single frame | local="none", global_memory=False; the projection is unused |
| temporal, BottleneckLSTM or ConvLSTM | local="blstm" or "clstm", global_memory=False |
| efficient local aggregation | local="ela", global_memory=False |
| spatial memory (AGA alone) | local="none" |
| DMNet | local="blstm" or "clstm" |
| both readers, as in the paper | local="ela", share_key_value=True |

All variants need encoder="torch".
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmnet_jax.models.dmnet import (
    PAPER_MAX_SIMILARITY,
    PAPER_MIN_CONFIDENCE,
    DMNet,
    Local,
)
from dmnet_jax.models.protocol import ClipBatch
from dmnet_jax.weights.layout import (
    TORCH_NORM,
    WeightsError,
    block_indices,
    check_shapes,
    norm_table,
    rearrange,
    unflatten,
)

SOURCE = "the authors' checkpoint"

_BOTTLENECK_LSTM = {
    "lstm.processer.cell.W.weight": "input_filter/kernel",
    "lstm.processer.cell.W.bias": "input_filter/bias",
    "lstm.processer.cell.Wy.weight": "bottleneck/kernel",
    "lstm.processer.cell.Wy.bias": "bottleneck/bias",
    "lstm.processer.cell.Wi.weight": "gate_filter/kernel",
    "lstm.processer.cell.Wbi.weight": "gate_i/kernel",
    "lstm.processer.cell.Wbf.weight": "gate_f/kernel",
    "lstm.processer.cell.Wbc.weight": "gate_c/kernel",
    "lstm.processer.cell.Wbo.weight": "gate_o/kernel",
}
_CONV_LSTM = {
    "lstm.processer.cell_list.0.conv.weight": "gates/kernel",
    "lstm.processer.cell_list.0.conv.bias": "gates/bias",
}
_KEY_VALUE = {
    "memory.kv.Key.weight": "key/kernel",
    "memory.kv.Key.bias": "key/bias",
    "memory.kv.Value.weight": "value/kernel",
    "memory.kv.Value.bias": "value/bias",
}


def from_authors(state: Mapping[str, np.ndarray], *, model: DMNet) -> dict[str, Any]:
    """Converts a checkpoint of the release to the variables of `model`.

    Every array is used exactly once, except `num_batches_tracked` (the momentum of
    batch norm is fixed) and the unused projection of the single-frame network. The
    thresholds are the paper's, which match these features.

    Args:
        state: state dict of the checkpoint, see `torch_file.read_torch`.
        model: network with the fields of the table above.

    Returns:
        {"params", "batch_stats", "thresholds"}, float32 arrays.

    Raises:
        WeightsError: an array is missing, unused, or has another shape, or the fields
            of the model match no variant of the release.
    """
    if model.encoder != "torch":
        raise WeightsError(f"{SOURCE} needs a model with encoder='torch'")
    table = _table(model)
    unneeded = [name for name in state if name.endswith(".num_batches_tracked")]
    if model.local == "none" and not model.global_memory:
        unneeded += _KEY_VALUE
    flat = rearrange(state, table, unneeded, source=SOURCE)
    names = {ours: theirs for theirs, ours in table.items()}
    check_shapes(flat, _shapes(model), names, source=SOURCE)
    variables = unflatten(flat)
    variables["thresholds"] = {
        "min_confidence": np.float32(PAPER_MIN_CONFIDENCE),
        "max_similarity": np.float32(PAPER_MAX_SIMILARITY),
    }
    return variables


def is_authors(names: Iterable[str]) -> bool:
    """Returns whether arrays of these names are a checkpoint of the release."""
    return "encoder.layer1.0.weight" in names


def guess_model(
    state: Mapping[str, np.ndarray],
    *,
    local: Local | None = None,
    global_memory: bool | None = None,
) -> DMNet:
    """Guesses the model of a checkpoint from its array names.

    The names determine the recurrent cell and whether there is a projection, but not
    which reader uses it; the global memory is assumed. Pass `local="ela",
    global_memory=False` for efficient local aggregation, or `global_memory=False` for
    the single-frame network.
    """
    if local is None:
        local = "none"
        if any(name in state for name in _BOTTLENECK_LSTM):
            local = "blstm"
        elif any(name in state for name in _CONV_LSTM):
            local = "clstm"
    if global_memory is None:
        global_memory = any(name in state for name in _KEY_VALUE)
    classes = state.get("decoder.segm.bias")
    if classes is None or classes.ndim != 1:
        raise WeightsError(f"{SOURCE} lacks decoder.segm.bias")
    return DMNet(
        num_classes=len(classes),
        local=local,
        global_memory=global_memory,
        share_key_value=local == "ela" and global_memory,
        encoder="torch",
    )


def _table(model: DMNet) -> dict[str, str]:
    table = {"encoder.layer1.0.weight": "params/backbone/stem/kernel"}
    table |= norm_table("encoder.layer1.1.", "backbone/stem_norm", TORCH_NORM)
    for stage, blocks in enumerate(block_indices()):
        for repeat, block in enumerate(blocks):
            for place, layer in enumerate(("expand", "depthwise", "project")):
                theirs = f"encoder.layer{stage + 2}.{repeat}.output.{place}"
                ours = f"backbone/block{block}/{layer}"
                table[f"{theirs}.0.weight"] = f"params/{ours}/kernel"
                table |= norm_table(f"{theirs}.1.", f"{ours}_norm", TORCH_NORM)
    for n in (7, 8):
        table[f"encoder.conv{n}.weight"] = f"params/lateral{n}/kernel"
    for n in (3, 4, 5, 6):
        table[f"decoder.conv{n}.weight"] = f"params/decoder/lateral{n}/kernel"
    for n in (2, 3, 4):
        table[f"decoder.conv_adapt{n}.weight"] = f"params/decoder/adapt{n}/kernel"
    for n in (1, 2, 3, 4):
        for stage in range(4):
            theirs = f"decoder.crp{n}.0.{stage + 1}_outvar_dimred.weight"
            table[theirs] = f"params/decoder/crp{n}/conv{stage}/kernel"
    table["decoder.segm.weight"] = "params/decoder/classifier/kernel"
    table["decoder.segm.bias"] = "params/decoder/classifier/bias"

    parts: dict[str, dict[str, str]] = {}
    if model.local in ("ela", "blstm"):
        parts["recurrent"] = _BOTTLENECK_LSTM
    elif model.local == "clstm":
        parts["recurrent"] = _CONV_LSTM
    attends = model.local in ("ela", "nl")
    if attends and model.global_memory and not model.share_key_value:
        raise WeightsError(
            f"{SOURCE} has one key/value projection for both readers: the model needs "
            "share_key_value=True"
        )
    if attends or model.global_memory:
        reader = "local" if attends else "global"
        parts[f"{reader}_key_value"] = _KEY_VALUE
    for ours, names in parts.items():
        table |= {theirs: f"params/{ours}/{name}" for theirs, name in names.items()}
    return table


def _shapes(model: DMNet) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the model's parameters and statistics by flat name."""
    frames = jnp.zeros((1, model.local_size + 1, 32, 32, 3))
    past = jnp.zeros((1, 1, 32, 32, 3))
    masks = [jnp.ones(x.shape[:2], bool) for x in (frames, past)]
    variables = jax.eval_shape(
        lambda key: model.init(
            *(key, ClipBatch(frames, masks[0], past, masks[1]), key), method="clip"
        ),
        jax.random.key(0),
    )
    leaves = jax.tree.leaves_with_path(
        {name: variables[name] for name in ("params", "batch_stats")}
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in leaves
    }
