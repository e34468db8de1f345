"""Missing packages are reported in one line that says how to install them."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.io.environment import install_command

ROOT = Path(__file__).parents[3]
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for folder in ("dmnet_jax", "data_pipelines")
    for path in (ROOT / folder).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)


def run_without_packages(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs an interpreter that has only the standard library (-S)."""
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", [*COMMANDS, "train.py", "evaluate.py"])
def test_commands_outside_the_environment_fail_with_one_line(command):
    arguments = [command] if command.endswith(".py") else ["-m", command]
    if command == "dmnet_jax.weights":  # parses before it loads anything
        arguments += ["convert", "none.pth", "none.safetensors"]
    result = run_without_packages(*arguments)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and "activate the environment" in lines[0]


def test_library_imports_raise_a_regular_traceback():
    result = run_without_packages("-c", "import data_pipelines.prepared")
    assert "Traceback" in result.stderr and "No module named 'numpy'" in result.stderr


def test_install_command_names_the_wheel_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.io.environment._ROOT", tmp_path)
    assert (
        install_command("tb") == 'pip install "dmnet_jax-VERSION-py3-none-any.whl[tb]"'
    )


def test_no_text_installs_the_project_from_an_index():
    assert install_command("tb") == 'pip install -e ".[tb]"'
    for folder in ("dmnet_jax", "data_pipelines", "configs", "docs"):
        for path in (ROOT / folder).rglob("*.[pm][yd]"):
            assert "dmnet-jax[" not in path.read_text(encoding="utf-8"), path
