"""Import of the authors' checkpoints is exact and uses every array once."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.weights.authors import from_authors, guess_model
from dmnet_jax.weights.checks import check_authors, draw_state, read_index
from dmnet_jax.weights.layout import WeightsError, flatten

GOLDEN = Path(__file__).parents[1] / "golden"
State = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def state() -> State:
    return draw_state(read_index(GOLDEN)["dmnet_btnlstm"])


def model(**switches) -> DMNet:
    defaults = {"num_classes": 4, "local": "blstm", "encoder": "torch"}
    return DMNet(**{**defaults, **switches})


@pytest.mark.parametrize("name", ["dmnet_btnlstm", "effla_btnlstm"])
def test_imported_network_agrees_with_pytorch(name: str) -> None:
    differences = check_authors(GOLDEN, name)
    assert {d.name for d in differences} == {"logits", "enc_l7", "lstm", "memory"}
    for difference in differences:
        assert difference.relative < 1e-5, difference


def test_float32_network_agrees_up_to_rounding() -> None:
    """The tolerance of the check on GPUs, many of which lack float64 products."""
    differences = check_authors(GOLDEN, "effla_btnlstm", "float32")
    assert all(d.relative < 1e-4 for d in differences), differences
    assert max(d.relative for d in differences) > 1e-7


def test_every_value_is_imported(state: State) -> None:
    """Sorted, the imported numbers are the checkpoint's."""
    variables = from_authors(state, model=model())
    del variables["thresholds"]
    imported = np.concatenate([x.ravel() for x in flatten(variables).values()])
    floats = [x.ravel() for x in state.values() if x.dtype == np.float32]
    np.testing.assert_array_equal(np.sort(imported), np.sort(np.concatenate(floats)))


def test_parameter_count_equals_the_paper(state: State) -> None:
    variables = from_authors(state, model=model())
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    # 4,095,496 with the release's 8 classes; each class is 256 * 9 + 1 of them.
    assert count == 4_095_496 - 4 * (256 * 9 + 1)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer1.0.weight",
        "encoder.layer5.2.output.1.1.running_var",
        "decoder.crp2.0.3_outvar_dimred.weight",
        "lstm.processer.cell.Wbf.weight",
        "memory.kv.Value.bias",
    ],
)
def test_a_missing_array_is_named(state: State, name: str) -> None:
    with pytest.raises(WeightsError, match=f"lacks {name}$"):
        from_authors({k: v for k, v in state.items() if k != name}, model=model())


def test_unexpected_array_is_named(state: State) -> None:
    with pytest.raises(WeightsError, match="has decoder.extra.weight, which"):
        from_authors(state | {"decoder.extra.weight": np.zeros(2)}, model=model())


def test_an_array_of_another_shape_is_named(state: State) -> None:
    with pytest.raises(WeightsError, match="decoder.segm.bias .*4,.*2,"):
        from_authors(state, model=model(num_classes=2))


def test_switches_must_fit(state: State) -> None:
    with pytest.raises(WeightsError, match="encoder='torch'"):
        from_authors(state, model=model(encoder="keras"))
    with pytest.raises(WeightsError, match="share_key_value=True"):
        from_authors(state, model=model(local="ela"))
    with pytest.raises(WeightsError, match="lstm.processer"):
        from_authors(state, model=model(local="none"))
    with pytest.raises(WeightsError, match="memory.kv"):
        from_authors(state, model=model(global_memory=False))


def test_only_the_single_frame_network_may_leave_the_projection_unused(
    state: State,
) -> None:
    single = {k: v for k, v in state.items() if not k.startswith("lstm.")}
    network = model(local="none", global_memory=False)
    params = from_authors(single, model=network)["params"]
    assert set(params) == {"backbone", "lateral7", "lateral8", "decoder"}
    without = {k: v for k, v in single.items() if not k.startswith("memory.")}
    assert set(from_authors(without, model=network)["params"]) == set(params)


def test_model_is_guessed_from_names(state: State) -> None:
    guess = guess_model(state)
    assert (guess.local, guess.global_memory) == ("blstm", True)
    assert guess.num_classes == 4
    guess = guess_model(state, local="ela")
    assert guess.share_key_value
    both = from_authors(state, model=guess)["params"]
    assert "local_key_value" in both and "global_key_value" not in both
    temporal = {k: v for k, v in state.items() if not k.startswith("memory.")}
    assert not guess_model(temporal).global_memory


def test_an_index_of_other_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="index.json"):
        read_index(tmp_path)
    for content, message in (
        ("[1]", "not an index"),
        ("{", "not an index"),
        (json.dumps({"resnet": {}}), "unknown model resnet"),
        (json.dumps({"single_frame": {}}), "single_frame lacks"),
    ):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(WeightsError, match=message):
            read_index(tmp_path)
