"""The shipped networks exist, open like runs, and find instruments."""

import logging

import numpy as np
import pytest

from data_pipelines.sources.rendered import RenderedVideos
from dmnet_jax import evaluation, models
from dmnet_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from dmnet_jax.config.model import SHIPPED_WIDTHS
from dmnet_jax.streaming import load_run
from dmnet_jax.training.initial import initial_variables
from dmnet_jax.weights.files import WeightsError, write_safetensors
from dmnet_jax.weights.layout import flatten
from dmnet_jax.weights.network_file import read_network
from dmnet_jax.weights.rendered import SHIPPED, write_rendered

RENDERED = SHIPPED["rendered"]


@pytest.mark.parametrize("name", SHIPPED)
def test_finds_instruments_in_unseen_scenes(name) -> None:
    trained = load_run(name)
    videos = RenderedVideos(99, 6, 1, (128, 160))
    result = evaluation.evaluate(trained.model, trained.variables, videos)
    instrument = result.confusion[1:, 1:].sum() / result.confusion[1:].sum()
    assert instrument > 0.75  # of the instrument pixels, in the class of any part
    background = result.confusion[0, 0] / result.confusion[0].sum()
    assert background > 0.95


@pytest.mark.parametrize("name", SHIPPED)
def test_file_is_small_and_describes_its_training(name) -> None:
    assert sum(path.stat().st_size for path in SHIPPED.values()) < 12e6
    _, about = read_network(SHIPPED[name])
    assert about["config"]["data"]["dataset"] == "rendered"
    assert about["config"]["model"]["width"] == SHIPPED_WIDTHS[name]
    names = [info["name"] for info in about["classes"]]
    assert names == ["background", "shaft", "wrist", "claspers"]


def test_round_trip_is_exact_up_to_rounding(tmp_path) -> None:
    variables, about = read_network(RENDERED)
    write_rendered(tmp_path / "again.safetensors", variables, about, "a card")
    again, description = read_network(tmp_path / "again.safetensors")
    assert description == about
    for name, array in flatten(again).items():
        np.testing.assert_array_equal(array, flatten(variables)[name])


def test_values_beyond_float16_are_refused(tmp_path) -> None:
    variables, about = read_network(RENDERED)
    variables["params"]["decoder"]["classifier"]["bias"][0] = 1e6
    with pytest.raises(WeightsError, match="classifier/bias.*out of range for float16"):
        write_rendered(tmp_path / "x.safetensors", variables, about)


@pytest.mark.parametrize("notes", [{}, {"about": "{}"}, {"about": "no JSON"}])
def test_a_file_without_a_description_is_one_error(tmp_path, notes) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"params": {"x": np.zeros(1)}}, notes)
    with pytest.raises(WeightsError, match="the header lacks"):
        read_network(path)


def start(start_from: str = "", **model) -> dict:
    config = Config(
        data=DataConfig(num_classes=model.pop("classes", 4)),
        model=ModelConfig(pretrained="rendered", **model),
        train=TrainConfig(start_from=start_from),
    )
    return flatten(initial_variables(models.build(config), config))


def test_training_starts_from_all_matching_arrays() -> None:
    shipped = flatten(read_network(RENDERED)[0])
    begun = start(classes=8)
    for name, array in shipped.items():
        correcting = "params/prediction_state", "params/mask_memory"
        if name.startswith(("thresholds", *correcting)):
            continue
        if "classifier" in name:
            assert begun[name].shape != array.shape
        else:
            np.testing.assert_array_equal(begun[name], array)
    memory = [name for name in begun if name not in shipped]
    assert any("recurrent" in name for name in memory)


def test_a_run_can_go_on_from_all_modules_of_a_shipped_network() -> None:
    variables, about = read_network(SHIPPED["rendered-fast"])
    fast, parts = flatten(variables), about["config"]["model"]["state_parts"]
    network = {"local": "none", "global_memory": False, "state": True}
    network["state_parts"] = tuple(parts)
    begun = start("rendered-fast", width=128, value_channels=64, **network)
    assert {name for name in begun if "thresholds" not in name} <= fast.keys()
    for name, array in begun.items():
        if not name.startswith("thresholds"):  # those are the config's
            np.testing.assert_array_equal(array, fast[name])
    with pytest.raises(ValueError, match="has a different shape"):
        start("rendered-fast", **network)


def test_a_state_with_other_parts_starts_anew(caplog) -> None:
    network = {"local": "none", "global_memory": False, "state": True}
    parts = {"state_parts": ("appearance", "age")}
    with caplog.at_level(logging.WARNING):
        begun = start("rendered-fast", width=128, value_channels=64, **network, **parts)
    assert "its prediction_state has other parts and is not used" in caplog.text
    assert begun["params/prediction_state/gain"] == 0
    backbone = [name for name in begun if name.startswith("params/backbone")]
    fast = flatten(read_network(SHIPPED["rendered-fast"])[0])
    assert backbone
    for name in backbone:
        np.testing.assert_array_equal(begun[name], fast[name])


def test_another_encoder_cannot_start_from_it() -> None:
    with pytest.raises(
        ValueError, match='needs model.name "dmnet" and model.encoder "keras"'
    ):
        start(encoder="torch")
