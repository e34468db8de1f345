"""The house holds: who may import whom, and what nobody may."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("dmnet_jax", "data_pipelines", "configs", "tests")
    for path in (ROOT / folder).rglob("*.py")
) + [ROOT / "train.py", ROOT / "evaluate.py"]
LIBRARY = [path for path in SOURCES if "tests" not in path.parts]


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module}
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def reaches(path: Path, *modules: str) -> set[str]:
    return {
        name
        for name in imports(path)
        if any(name == module or name.startswith(f"{module}.") for module in modules)
    }


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_unpickles_and_nothing_needs_other_frameworks(path):
    if path.name == "make_golden.py":  # regenerates a golden with PyTorch, by hand
        return
    assert not reaches(path, "pickle", "dill", "joblib", "tensorflow", "torch")


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_dependencies_point_one_way(path):
    name = name_of(path)
    forbidden = {
        "dmnet_jax/memory/": ("dmnet_jax", "orbax", "PIL", "data_pipelines"),
        "dmnet_jax/nn/": ("dmnet_jax.models", "dmnet_jax.training", "data_pipelines"),
        "dmnet_jax/metrics/": ("jax", "flax", "dmnet_jax.models"),
        "dmnet_jax/losses.py": ("dmnet_jax", "data_pipelines"),
        "dmnet_jax/parallel.py": ("dmnet_jax", "data_pipelines"),
        "dmnet_jax/checkpoint": ("dmnet_jax.models", "dmnet_jax.training"),
        "dmnet_jax/models/": ("dmnet_jax.training", "dmnet_jax.evaluation"),
        "data_pipelines/": ("jax", "flax", "optax", "orbax", "dmnet_jax"),
    }
    for place, modules in forbidden.items():
        if name.startswith(place):
            own = "dmnet_jax.memory" if place == "dmnet_jax/memory/" else None
            found = {
                module
                for module in reaches(path, *modules)
                if own is None or not module.startswith(own)
            }
            assert not found, f"{name} must not import {sorted(found)}"


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_only_their_rooms_know_devices_and_orbax(path):
    name, text = name_of(path), path.read_text()
    assert name == "dmnet_jax/parallel.py" or ".pmap(" not in text
    assert name.startswith("dmnet_jax/checkpoint") or not reaches(path, "orbax")
    assert "jnp.empty" not in text


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_two_rooms(path):
    assert len(path.read_text().splitlines()) <= 400
