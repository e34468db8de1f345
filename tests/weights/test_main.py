"""The command line: verdicts, one-line errors, and full checks if data exists."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmnet_jax.weights import checks
from dmnet_jax.weights.__main__ import main
from dmnet_jax.weights.authors import from_authors, guess_model
from dmnet_jax.weights.files import read_metadata, read_weights, write_safetensors
from dmnet_jax.weights.layout import flatten

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
AUTHORS = ROOT.parent / "shared" / "reference" / "authors_golden"
IMAGENET = ROOT.parent / "shared" / "data" / "mobilenetv2_imagenet"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dmnet_jax.weights", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.001, 1)])
def test_verdict_on_the_authors_outputs(
    factor: float,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_variant(name: str, record: dict, dtype: str) -> dict[str, np.ndarray]:
        maps = read_weights(GOLDEN / f"{name}.npz")
        return maps | {"lstm": maps["lstm"] * np.float32(factor)}

    monkeypatch.setattr(checks, "run_variant", run_variant)
    assert main(["check-authors", str(GOLDEN)]) == status
    printed = capsys.readouterr().out
    assert ("NOT exact" in printed) == (status == 1)
    assert printed.count(" lstm ") == len(checks.read_index(GOLDEN))


def test_convert_keeps_an_authors_checkpoint(tmp_path: Path) -> None:
    record = checks.read_index(GOLDEN)["effla_btnlstm"]
    state = checks.draw_state(record)
    write_safetensors(tmp_path / "in.safetensors", state, {})
    out = tmp_path / "out.safetensors"
    arguments = [str(tmp_path / "in.safetensors"), str(out), "--local", "ela"]
    assert main(["convert", *arguments, "--no-global-memory"]) == 0
    notes = read_metadata(out)
    assert notes["local"] == "ela" and notes["global_memory"] == "false"
    model = guess_model(state, local="ela", global_memory=False)
    expected = flatten(from_authors(state, model=model))
    written = read_weights(out)
    assert set(written) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(written[name], array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check-authors", "nowhere"], "nowhere/index.json: no such file"),
        (["check-imagenet", "nowhere"], "expected_top5.json: no such file"),
        (["convert", "nowhere.pth", "a.safetensors"], "nowhere.pth: no such file"),
        (["convert", "README.rst", "a.safetensors"], "README.rst: no such file"),
    ],
)
def test_mistakes_are_one_error_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_help_does_not_import_jax() -> None:
    program = (
        "import sys\n"
        "from dmnet_jax.weights.__main__ import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "check-authors" in done.stdout


@pytest.mark.skipif(not AUTHORS.is_dir(), reason=f"needs {AUTHORS.name}, not shipped")
def test_check_authors_on_the_release(tmp_path: Path) -> None:
    name = "temporal_convlstm"
    record = json.loads((AUTHORS / "index.json").read_text())[name]
    (tmp_path / "index.json").write_text(json.dumps({name: record}))
    shutil.copy(AUTHORS / f"{name}.npz", tmp_path)
    done = command("check-authors", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nexact" in done.stdout


@pytest.mark.skipif(not IMAGENET.is_dir(), reason=f"needs {IMAGENET.name}, not shipped")
def test_check_imagenet_on_photos() -> None:
    done = command("check-imagenet", IMAGENET)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Egyptian cat" in done.stdout and "WRONG" not in done.stdout
