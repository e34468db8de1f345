"""The doctor's checks and its reports of problems."""

import json
from importlib import metadata

import pytest

from dmnet_jax import doctor
from dmnet_jax.doctor import CHECKS, main
from dmnet_jax.video import pyav as video
from dmnet_jax.video.sources import SourceError
from tests.streaming.test_session import Interface, Program, Recorder


@pytest.fixture
def quick(monkeypatch):
    """Replaces the program of the step check by one that only counts frames."""
    monkeypatch.setattr(doctor, "_SIZE", (32, 32))
    monkeypatch.setattr("dmnet_jax.training.initial.initial_variables", lambda *_: None)
    monkeypatch.setattr("dmnet_jax.models.build", lambda *_: None)
    monkeypatch.setattr(
        "dmnet_jax.streaming.compile",
        lambda model, variables, size: _program(size),
    )


def _program(size):
    recorder = Recorder()
    return Program(Interface(size, 1, 3, size), recorder.init, recorder.call)


def test_a_working_installation(quick, capsys):
    assert main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["works"] and [c["name"] for c in report["checks"]] == list(CHECKS)
    assert not [c for c in report["checks"] if c["status"] == "failed"]
    assert "ms per frame" in report["checks"][3]["detail"]


def test_a_failed_check_is_reported_with_a_fix(quick, monkeypatch, capsys):
    def broken(name):
        raise OSError("the file\nis damaged")

    monkeypatch.setitem(CHECKS, "weights", broken)
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED   weights: OSError: the file is damaged" in out
    assert "→ pip install" in out and "ok       step" in out


def test_missing_extras_are_warnings_with_a_command(quick, monkeypatch, capsys):
    def missing():
        raise SourceError("no PyAV")

    monkeypatch.setattr(video, "pyav", missing)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "MIN_FREE_SPACE", 1e30)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.count("warning") == 3
    assert '".[video]"' in out and '".[tb]"' in out


def test_commands_are_declared():
    scripts = metadata.entry_points(group="console_scripts")
    commands = {script.name: script.value for script in scripts}
    if "dmnet-doctor" not in commands:
        pytest.skip("the package is not installed, or an old version is")
    assert commands["dmnet-doctor"] == "dmnet_jax.doctor:main"
    assert commands["dmnet-predict"] == "dmnet_jax.predict.__main__:main"
