"""Which commands the page may send."""

import pytest

from dmnet_jax.live.commands import check


@pytest.mark.parametrize(
    "command",
    [
        {"paused": True},
        {"compare": False},
        {"seek": 3},
        {"seek": 2.5},
        {"source": "camera 0"},
        {"forget": "reset-local"},
        {"forget": "reset-all"},
        {"min_confidence": -1.0, "max_similarity": -2},
        {"degrade": "smoke", "severity": 5},
        {"degrade": "none", "severity": 1},
    ],
)
def test_valid_commands(command):
    check(command)


@pytest.mark.parametrize(
    "command",
    [
        {},
        {"paused": 1},
        {"compare": "yes"},
        {"seek": True},
        {"seek": float("inf")},
        {"source": 0},
        {"forget": "reset"},
        {"forget": []},
        {"min_confidence": -1.0},
        {"min_confidence": float("nan"), "max_similarity": -1},
        {"min_confidence": "low", "max_similarity": -1},
        {"paused": True, "forget": "reset-all"},
        {"degrade": "fire", "severity": 3},
        {"degrade": "smoke", "severity": 6},
        {"unknown": 1},
    ],
)
def test_invalid_commands(command):
    with pytest.raises(ValueError, match="unknown command"):
        check(command)
