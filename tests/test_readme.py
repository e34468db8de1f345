"""What the README shows is what happens."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_quick_start_is_two_complete_lines():
    section = README.split("## Quick start")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.S)
    assert len(blocks) == 1
    lines = blocks[0].strip().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("python3 -m venv") for line in lines)


def test_memory_example_runs(capsys):
    section = README.split("## The memory as a library")[1]
    example = re.search(r"```python\n(.*?)```", section, re.S)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})
    remembered = int(capsys.readouterr().out.split()[0])
    assert 1 < remembered < 500


def test_files_it_names_exist():
    named = set(re.findall(r"`?(configs/\w+\.py|docs/\w+\.png|NOTICE)", README))
    assert len(named) >= 5
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def test_modules_it_runs_exist():
    for name in set(
        re.findall(r"python -m (dmnet_jax[\w.]*|data_pipelines[\w.]*)", README)
    ):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
