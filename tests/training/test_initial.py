"""Initial variables that are copied from the shipped network."""

import dataclasses

import jax
import numpy as np
import pytest

from dmnet_jax import models
from dmnet_jax.config import Config, StageConfig, load_config
from dmnet_jax.config.model import SHIPPED_STATE_PARTS
from dmnet_jax.training.initial import _copy_matching, initial_variables
from dmnet_jax.weights.network_file import read_network
from dmnet_jax.weights.rendered import SHIPPED


def test_the_shipped_networks_state_and_classifier_are_not_copied():
    saved = read_network(SHIPPED["rendered"])[0]["params"]
    assert float(saved["prediction_state"]["gain"]) != 0
    kernel = saved["decoder"]["classifier"]["kernel"]
    initial = {
        "params": {
            "lateral7": {"kernel": np.zeros_like(saved["lateral7"]["kernel"])},
            "prediction_state": {"gain": np.zeros(())},
            "decoder": {"classifier": {"kernel": np.zeros((*kernel.shape[:3], 9))}},
        }
    }
    params = _copy_matching(initial, read_network(SHIPPED["rendered"])[0])["params"]
    assert (params["lateral7"]["kernel"] == saved["lateral7"]["kernel"]).all()
    assert params["prediction_state"]["gain"] == 0
    assert not np.any(params["decoder"]["classifier"]["kernel"])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_fine_tuned_network_has_the_shipped_state(name):
    """The stages of `finetune` train the single frame alone; its classes are others."""
    config = load_config("finetune")
    model = dataclasses.replace(
        config.model,
        pretrained=name,
        width=read_network(SHIPPED[name])[1]["config"]["model"]["width"],
    )
    model = dataclasses.replace(model, value_channels=model.width // 2)
    config = dataclasses.replace(config, model=model)
    saved = read_network(SHIPPED[name])[0]["params"]["prediction_state"]
    state = initial_state(config)
    jax.tree.map(np.testing.assert_array_equal, state, saved)
    assert config.takes_shipped_state and state["gain"] != 0
    # A stage that trains the state starts anew.
    stages = (*config.train.stages, StageConfig("state", 1, train="state"))
    trained = dataclasses.replace(config.train, stages=stages)
    assert initial_state(dataclasses.replace(config, train=trained))["gain"] == 0


def initial_state(config: Config):
    model = models.build(config, axis_name=None)
    return initial_variables(model, config)["params"]["prediction_state"]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_state_has_the_parts_that_are_expected(name):
    about = read_network(SHIPPED[name])[1]
    assert tuple(about["config"]["model"]["state_parts"]) == SHIPPED_STATE_PARTS
