"""Initial variables that are copied from the shipped network."""

import numpy as np

from dmnet_jax.training.initial import _copy_matching
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
