import ast
import doctest
import subprocess
import sys
from pathlib import Path

from dmnet_jax import memory

FOLDER = Path(memory.__file__).parent
ALLOWED = {"collections", "dataclasses", "functools", "typing", "jax", "numpy"}
# For type checkers; `test_import_loads_only_jax` shows it is not loaded.
ALLOWED |= {"__future__", "jaxtyping"}
# Constants and an alias, which have no docstring.
UNDOCUMENTED = {"AdmissionPolicy", "EMPTY", "KEEP", "RESET_ALL", "RESET_LOCAL"}


def test_public_names_are_sorted_and_defined():
    assert memory.__all__ == sorted(memory.__all__)
    for name in memory.__all__:
        assert getattr(memory, name) is not None
    public = {n for n in vars(memory) if not n.startswith("_")}
    assert public == set(memory.__all__)


def test_every_public_function_and_class_is_documented():
    for name in memory.__all__:
        if name not in UNDOCUMENTED:
            assert getattr(memory, name).__doc__, name


def test_package_example_runs():
    results = doctest.testmod(memory)
    assert results.attempted >= 8
    assert results.failed == 0


def test_source_imports_only_jax_and_itself():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                in_package = name.startswith("dmnet_jax.memory")
                assert in_package or name.split(".")[0] in ALLOWED, (
                    f"{path.name}: {name}"
                )


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parents[1],
    )
    return set(run.stdout.split())


def test_import_loads_only_jax():
    foundation = loaded_by("import jax, jax.numpy, jax.scipy.special")
    added = loaded_by("import dmnet_jax.memory") - foundation
    assert "dmnet_jax.memory" in added
    names = {m for m in added if not m.startswith(("jax.", "jax._src", "chex"))}
    assert {m for m in names if not m.startswith("dmnet_jax.memory")} == {"dmnet_jax"}
