"""What the doctor finds, and what it says when something is broken."""

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
    """Every check, the step with a program that only counts frames."""
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


def test_all_is_well(quick, capsys):
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["works"] and [c["name"] for c in found["checks"]] == list(CHECKS)
    assert not [c for c in found["checks"] if c["status"] == "failed"]
    assert "ms a frame" in found["checks"][3]["detail"]


def test_what_fails_is_told_with_what_mends_it(quick, monkeypatch, capsys):
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
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e30)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.count("warning") == 3
    assert '".[video]"' in out and '".[tb]"' in out


def test_commands_are_declared():
    scripts = metadata.entry_points(group="console_scripts")
    named = {script.name: script.value for script in scripts}
    if "dmnet-doctor" not in named:
        pytest.skip("installed before it had commands; pip install -e .")
    assert named["dmnet-doctor"] == "dmnet_jax.doctor:main"
    assert named["dmnet-predict"] == "dmnet_jax.predict.__main__:main"
