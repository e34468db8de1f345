"""The README's examples run, and the files it links to exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = [
    (ROOT / "README.md", "The memory as a library"),
    (ROOT / "docs/library.md", "Remember unusual readings"),
]


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_readme_is_one_page():
    assert len(README.splitlines()) < 180
    assert len(re.findall("not a medical device", README, re.I)) == 1


def test_quick_start_is_two_complete_lines():
    section = README.split("## Quick start")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.S)
    assert len(blocks) == 1
    lines = blocks[0].strip().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("python3 -m venv") for line in lines)
    assert "\n".join(lines) in (ROOT / "docs/quick_start.md").read_text()


@pytest.mark.parametrize(("page", "heading"), EXAMPLES)
def test_the_memory_example_runs(page, heading, capsys):
    section = page.read_text().split(f"## {heading}")[1]
    example = re.search(r"```python\n(.*?)```", section, re.S)
    assert example is not None
    exec(compile(example[1], page.name, "exec"), {})
    admitted = int(capsys.readouterr().out.split()[0])
    assert 1 < admitted < 500


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=page_name)
def test_files_in_documents_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    paths = re.findall(r"`((?:configs|examples|docs|dmnet_jax|tests)/[\w/.]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_modules_in_documents_exist():
    pages = "\n".join(path.read_text() for path in [ROOT / "README.md", *PAGES])
    pattern = r"python -m\s+(dmnet_jax[\w.]*|data_pipelines[\w.]*)"
    for name in set(re.findall(pattern, pages)):
        if name.endswith(".NAME"):
            continue
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
