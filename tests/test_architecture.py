"""The house holds: who may import whom, and what nobody may."""

import ast
import sys
from pathlib import Path

import pytest

from dmnet_jax import memory

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("dmnet_jax", "data_pipelines", "configs", "tests")
    for path in (ROOT / folder).rglob("*.py")
) + [ROOT / "train.py", ROOT / "evaluate.py"]
LIBRARY = [path for path in SOURCES if ROOT / "tests" not in path.parents]
STANDARD = sys.stdlib_module_names


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if is_own_module(name)}
            names |= modules | ({node.module} if modules != inner else set())
    return names


def names_in(path: Path) -> set[str]:
    """All names and attributes of a file's code; not the words of its texts."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    imported = {node.name for node in nodes if isinstance(node, ast.alias)}
    return attributes | imported


def is_own_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def below(name: str, *modules: str) -> bool:
    return any(name == m or name.startswith(f"{m}.") for m in modules)


def reaches(path: Path, *modules: str) -> set[str]:
    return {name for name in imports(path) if below(name, *modules)}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_unpickles_and_nothing_needs_other_frameworks(path):
    # One regenerates a golden with PyTorch, by hand; two are what we are compared with.
    if path.name in ("make_golden.py", "torch_dmnet.py", "torch_live.py"):
        return
    assert not reaches(path, "pickle", "dill", "joblib", "tensorflow", "torch")


# What the project's own files of a room may import of the project. One that is missing
# here (training, command lines) may import all that is below it.
ROOMS = {
    "dmnet_jax/memory/": ("dmnet_jax.memory",),
    "dmnet_jax/nn/": ("dmnet_jax.nn", "dmnet_jax.memory"),
    "dmnet_jax/models/": tuple(
        f"dmnet_jax.{room}"
        for room in ("models", "nn", "memory", "weights", "config", "checkpoint")
    )
    + ("data_pipelines.flow",),
    "dmnet_jax/metrics/": ("dmnet_jax.metrics",),
    "dmnet_jax/streaming/": tuple(
        f"dmnet_jax.{room}"
        for room in ("streaming", "models", "nn", "memory", "config", "checkpoint")
    )
    + ("data_pipelines", "dmnet_jax.trained"),
    "dmnet_jax/trained.py": tuple(
        f"dmnet_jax.{room}"
        for room in (
            *("models", "config", "checkpoint", "provenance"),
            "weights.rendered",
        )
    ),
    "dmnet_jax/losses.py": (),
    "dmnet_jax/robustness/": tuple(
        f"dmnet_jax.{room}"
        for room in (
            *("robustness", "models", "nn", "metrics", "evaluation", "results"),
            *("config", "datasets", "provenance", "waiting"),
        )
    )
    + ("data_pipelines",),
    "dmnet_jax/benchmark/torch_": (
        "dmnet_jax.benchmark",
        "dmnet_jax.nn.mobilenet",
        "dmnet_jax.streaming.runtimes",
        "dmnet_jax.weights.layout",
    ),
    "dmnet_jax/parallel.py": (),
    "dmnet_jax/run_log.py": (),
    "dmnet_jax/resume.py": ("dmnet_jax.config", "dmnet_jax.typed"),
    "dmnet_jax/checkpoint": (
        "dmnet_jax.checkpoint",
        "dmnet_jax.checkpoint_folder",
        "dmnet_jax.host_state",
    ),
    "dmnet_jax/host_state.py": ("dmnet_jax.checkpoint_folder",),
    "dmnet_jax/recipes.py": ("dmnet_jax.config", "dmnet_jax.typed"),
    "configs/": ("dmnet_jax.config", "dmnet_jax.recipes"),
    "data_pipelines/": ("data_pipelines",),
}


@pytest.mark.parametrize("room", ROOMS)
def test_dependencies_point_one_way(room):
    members = [path for path in LIBRARY if name_of(path).startswith(room)]
    assert members
    for path in members:
        own = reaches(path, "dmnet_jax", "data_pipelines", "configs")
        strange = {name for name in own if not below(name, *ROOMS[room])}
        assert not strange, f"{name_of(path)} must not import {sorted(strange)}"


def test_rooms_need_only_their_foreign_libraries():
    for path in LIBRARY:
        name, foreign = name_of(path), imports(path)
        if name.startswith("dmnet_jax/memory/"):
            own = {n for n in foreign if below(n, "dmnet_jax.memory", "jax", "numpy")}
            rest = {n for n in foreign - own if n.split(".")[0] not in STANDARD}
            assert not rest, f"{name}: {rest}"
        if name.startswith(("data_pipelines/", "dmnet_jax/metrics/")):
            found = reaches(path, "jax", "flax", "optax", "orbax")
            assert not found, f"{name}: {found}"


def test_public_names_of_the_memory_library():
    """A name that goes, or comes, is a decision about other people's programs."""
    assert (
        memory.__all__
        == (
            "AdmissionPolicy Candidate DualMemory EMPTY GatedState KEEP RESET_ALL "
            "RESET_LOCAL Readout RingBuffer admit advance all_of always any_of attend "
            "blend confidence confident dissimilar every init init_dual init_state "
            "judge latest most_redundant novel prefill prefill_local push read_all "
            "read_key read_last read_top_k read_uniform read_window remember reset "
            "similarity stand_in"
        ).split()
    )


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_only_their_rooms_know_devices_and_orbax(path):
    name, text = name_of(path), path.read_text()
    assert name == "dmnet_jax/parallel.py" or "pmap" not in names_in(path)
    stores = ("dmnet_jax/checkpoint", "dmnet_jax/host_state.py")
    assert name.startswith(stores) or not reaches(path, "orbax")
    assert "jnp.empty" not in text


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_two_rooms(path):
    assert len(path.read_text().splitlines()) <= 400
