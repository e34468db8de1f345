"""Rules of the architecture: allowed imports, and what no module may use."""

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
    """Returns the dotted names of all modules that a file imports, anywhere in it."""
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
    """Returns all imported names and attributes in a file's code."""
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
def test_no_module_unpickles_or_uses_other_frameworks(path):
    # Exceptions: make_golden.py regenerates test data with PyTorch, and the benchmarks
    # compare with PyTorch.
    if path.name in ("make_golden.py", "torch_dmnet.py", "torch_live.py"):
        return
    assert not reaches(path, "pickle", "dill", "joblib", "tensorflow", "torch")


# Packages of the project that a package may import, besides itself. Packages that are
# not listed (training, commands) may import anything that does not create a cycle.
ALLOWED_IMPORTS = {
    "dmnet_jax/memory/": (),
    "dmnet_jax/nn/": ("memory",),
    "dmnet_jax/models/": ("config", "memory", "nn"),
    "dmnet_jax/weights/": ("models", "nn"),
    "dmnet_jax/config/": (),
    "dmnet_jax/checkpoint/": (
        "config",
        "models",
        "process",
        "weights.network_file",
        "weights.rendered",
    ),
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
# Modules that may not import data_pipelines: their inputs are arrays.
WITHOUT_DATA = ("memory", "nn", "metrics", "training/losses.py", "parallel.py")


def is_command(path: Path) -> bool:
    """Returns whether a file is a command, which may import anything."""
    return path.name == "__main__.py"


@pytest.mark.parametrize("package", ALLOWED_IMPORTS)
def test_dependencies_point_one_way(package):
    members = [path for path in LIBRARY if name_of(path).startswith(package)]
    assert members
    itself = package.removesuffix("/").removesuffix(".py").replace("/", ".")
    allowed = [f"dmnet_jax.{name}" for name in ALLOWED_IMPORTS[package]] + [itself]
    if not package.startswith(tuple(f"dmnet_jax/{name}" for name in WITHOUT_DATA)):
        allowed.append("data_pipelines")
    for path in members:
        if is_command(path):
            continue
        imported = reaches(path, "dmnet_jax", "data_pipelines", "configs")
        forbidden = {name for name in imported if not below(name, *allowed)}
        forbidden.discard("dmnet_jax")  # only its version, which imports nothing
        assert not forbidden, f"{name_of(path)} must not import {sorted(forbidden)}"


def test_imports_between_packages_have_no_cycles():
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


def test_packages_use_only_their_third_party_libraries():
    for path in LIBRARY:
        name, imported = name_of(path), imports(path)
        if name.startswith("dmnet_jax/memory/"):
            # jaxtyping is for type checkers only; another test checks that it is not
            # imported at run time.
            libraries = "dmnet_jax.memory", "jax", "numpy", "jaxtyping"
            others = {n for n in imported if not below(n, *libraries)}
            forbidden = {n for n in others if n.split(".")[0] not in STANDARD}
            assert not forbidden, f"{name}: {forbidden}"
        if name.startswith(("data_pipelines/", "dmnet_jax/metrics/")):
            forbidden = reaches(path, "jax", "flax", "optax", "orbax")
            assert not forbidden, f"{name}: {forbidden}"


def test_public_names_of_the_memory_library():
    """Adding or removing a public name affects users, so it must be intentional."""
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
def test_pmap_and_orbax_are_used_in_one_package_each(path):
    name, text = name_of(path), path.read_text()
    assert name == "dmnet_jax/parallel.py" or "pmap" not in names_in(path)
    assert name.startswith("dmnet_jax/checkpoint/") or not reaches(path, "orbax")
    assert "jnp.empty" not in text


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400
