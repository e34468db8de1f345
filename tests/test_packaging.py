"""What a wheel offers: a command for each program, and types."""

import re
import tomllib
from importlib import import_module

import pytest

from dmnet_jax import __version__
from tests.support.tiny_run import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = PROJECT["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_is_there(name):
    module, _, function = SCRIPTS[name].partition(":")
    assert callable(getattr(import_module(module), function))


def test_every_package_that_runs_has_a_command():
    """`python -m PACKAGE` is `dmnet-...` too, under the package's last name."""
    commands = {entry.partition(":")[0] for entry in SCRIPTS.values()}
    for folder in ("dmnet_jax", "data_pipelines"):
        for path in (ROOT / folder).rglob("__main__.py"):
            assert ".".join(path.relative_to(ROOT).with_suffix("").parts) in commands


def test_help_is_printed_and_no_mistake(capsys):
    """Of the one command that reads its first argument by itself."""
    main = import_module("dmnet_jax.experiments.__main__").main
    assert main(["--help"]) == 0
    assert "zero-shot" in capsys.readouterr().out


def test_types_are_declared():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package in ("dmnet_jax", "data_pipelines"):
        assert "py.typed" in data[package] and (ROOT / package / "py.typed").is_file()


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == __version__


def test_the_guide_for_contributors_names_files_that_exist():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(
        r"`((?:dmnet_jax|data_pipelines|tests|configs|\.ci)/[^`]*)`", guide
    )
    named = {name for name in named if "NAME" not in name and "*" not in name}
    assert len(named) > 20
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]
