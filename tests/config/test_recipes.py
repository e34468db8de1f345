"""Recipes are found by name and by path, and can start from another recipe."""

import pytest

from dmnet_jax.config import validate
from dmnet_jax.config.recipes import find_recipe, load_config, shipped_recipes
from dmnet_jax.config.serialization import ConfigError
from tests.support.tiny_run import ROOT


def test_the_shipped_recipes_are_those_of_configs():
    assert set(shipped_recipes().values()) == set((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_found_by_name(name, tmp_path, monkeypatch):
    path = ROOT / "configs" / f"{name}.py"
    by_path = load_config(path)
    monkeypatch.chdir(tmp_path)
    assert load_config(name) == by_path == validate(by_path)
    assert by_path.name == name


def test_a_users_file_is_not_confused_with_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from dmnet_jax.config import Config\ndef get_config(): return Config('own')"
    (tmp_path / "synthetic.py").write_text(text)
    assert load_config("synthetic.py").name == "own"
    assert load_config("synthetic").name == "synthetic"


def test_a_recipe_can_start_from_a_shipped_one(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from dmnet_jax.config import load_config\n"
        "def get_config(): return replace(load_config('endovis17'), name='mine')\n"
    )
    assert load_config(path).data == load_config("endovis17").data


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("endovis71", "endovis71: no such recipe; the shipped ones are camvid, "),
        ("elsewhere/synthetic.py", "no such config file; --config synthetic is ship"),
        ("elsewhere/other.py", "elsewhere/other.py: no such config file$"),
        ("mine.yaml", "mine.yaml: no such config file$"),
    ],
)
def test_missing_recipes_are_named(recipe, message):
    with pytest.raises(ConfigError, match=message):
        find_recipe(recipe)
