"""The house holds: who may import whom, and what nobody may."""

import ast
import sys
from graphlib import TopologicalSorter
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


# What a package may import of the project beside itself. One that is missing here
# (training, commands) may import all that is below it: see the test of cycles.
ROOMS = {
    "dmnet_jax/memory/": (),
    "dmnet_jax/nn/": ("memory",),
    "dmnet_jax/models/": ("config", "memory", "nn"),
    "dmnet_jax/weights/": ("models", "nn"),
    "dmnet_jax/config/": (),
    "dmnet_jax/checkpoint/": ("config", "models", "process", "weights.rendered"),
    "dmnet_jax/datasets/": ("config",),
    "dmnet_jax/metrics/": (),
    "dmnet_jax/evaluation/": (
        *("checkpoint", "config", "datasets", "metrics", "models", "nn", "process"),
        "video.overlay",
    ),
    "dmnet_jax/streaming/": ("checkpoint", "memory", "models", "nn"),
    "dmnet_jax/video/": (),
    "dmnet_jax/export/": (
        *("checkpoint", "config", "datasets", "evaluation", "memory", "metrics"),
        *("models", "nn", "streaming", "video"),
    ),
    "dmnet_jax/benchmark/torch_": (
        *("benchmark", "machine", "nn.mobilenet", "streaming.runtimes"),
        "weights.layout",
    ),
    "dmnet_jax/training/losses.py": (),
    "dmnet_jax/training/run_log.py": ("process",),
    "dmnet_jax/parallel.py": (),
    "configs/": ("config",),
    "data_pipelines/": (),
}
# These know no data: what they are given is arrays.
WITHOUT_DATA = ("memory", "nn", "metrics", "training/losses.py", "parallel.py")


def is_command(path: Path) -> bool:
    """Whether a file is a command, which may import anything below the commands."""
    return path.name == "__main__.py"


@pytest.mark.parametrize("room", ROOMS)
def test_dependencies_point_one_way(room):
    members = [path for path in LIBRARY if name_of(path).startswith(room)]
    assert members
    itself = room.removesuffix("/").removesuffix(".py").replace("/", ".")
    allowed = [f"dmnet_jax.{name}" for name in ROOMS[room]] + [itself]
    if not room.startswith(tuple(f"dmnet_jax/{name}" for name in WITHOUT_DATA)):
        allowed.append("data_pipelines")
    for path in members:
        if is_command(path):
            continue
        own = reaches(path, "dmnet_jax", "data_pipelines", "configs")
        strange = {name for name in own if not below(name, *allowed)}
        strange.discard("dmnet_jax")  # its version, which imports nothing
        assert not strange, f"{name_of(path)} must not import {sorted(strange)}"


def test_no_packages_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for path in LIBRARY:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if is_command(path) or len(parts) < 2 or parts[0] == "configs":
            continue
        for name in reaches(path, "dmnet_jax", "data_pipelines"):
            other = ".".join(name.split(".")[:2])
            if other != ".".join(parts[:2]):
                graph.setdefault(".".join(parts[:2]), set()).add(other)
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_rooms_need_only_their_foreign_libraries():
    for path in LIBRARY:
        name, foreign = name_of(path), imports(path)
        if name.startswith("dmnet_jax/memory/"):
            # For type checkers alone: that it is not loaded has a test of its own.
            libraries = "dmnet_jax.memory", "jax", "numpy", "jaxtyping"
            own = {n for n in foreign if below(n, *libraries)}
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
    assert name.startswith("dmnet_jax/checkpoint/") or not reaches(path, "orbax")
    assert "jnp.empty" not in text


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_two_rooms(path):
    assert len(path.read_text().splitlines()) <= 400
