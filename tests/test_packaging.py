"""Package metadata: commands, types, version and the contributor guide."""

import re
import tomllib
from importlib import import_module

import pytest

from dmnet_jax import __version__
from tests.support.tiny_run import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = PROJECT["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_exists(name):
    module, _, function = SCRIPTS[name].partition(":")
    assert callable(getattr(import_module(module), function))


def test_every_runnable_package_has_a_command():
    """Everything that runs with `python -m PACKAGE` also has a `dmnet-...` command."""
    commands = {entry.partition(":")[0] for entry in SCRIPTS.values()}
    for folder in ("dmnet_jax", "data_pipelines"):
        for path in (ROOT / folder).rglob("__main__.py"):
            assert ".".join(path.relative_to(ROOT).with_suffix("").parts) in commands


def test_help_of_the_experiments_is_printed(capsys):
    """This command parses its first argument itself."""
    main = import_module("dmnet_jax.experiments.__main__").main
    assert main(["--help"]) == 0
    assert "zero-shot" in capsys.readouterr().out


def test_types_are_declared():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package in ("dmnet_jax", "data_pipelines"):
        assert "py.typed" in data[package] and (ROOT / package / "py.typed").is_file()


def test_the_citation_has_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == __version__


def test_files_in_the_contributor_guide_exist():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(
        r"`((?:dmnet_jax|data_pipelines|tests|configs|\.ci)/[^`]*)`", guide
    )
    paths = {path for path in paths if "NAME" not in path and "*" not in path}
    assert len(paths) > 20
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]
