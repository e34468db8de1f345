"""Runs whose results cannot be written or whose folder was deleted."""

import json
import shutil
from unittest import mock

import pytest

from data_pipelines.io.files import WriteError
from dmnet_jax.checkpoint import load_variables, read_metadata
from dmnet_jax.checkpoint.folder import list_steps, read_bodies
from dmnet_jax.evaluation import results
from dmnet_jax.process import RunGoneError, run_lock
from tests.cli.test_train import load, records
from tests.support.tiny_run import RUN, TRAIN_STEPS, train_arguments, trained
from tests.support.toy import use_toy_networks


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, process = trained(tmp_path_factory.getbasetemp())
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def again(whole, tmp_path):
    """(run, main): a copy of the finished run, and its command."""
    run = tmp_path / "copied" / RUN
    shutil.copytree(whole / "whole" / RUN, run)
    arguments = train_arguments(whole, "unused")
    arguments[-1] = str(tmp_path / "copied")

    def main() -> int:
        with use_toy_networks():
            return load("train").main(arguments)

    return run, main


def error_line(main, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_results_that_could_not_be_written_are_written_later(again, whole, capsys):
    run, main = again
    before = (run / "results.json").read_text()
    (run / "results.json").unlink()
    expected_records = records(run)
    full = WriteError(f"{run}/frames.csv: cannot be written (No space left on device)")
    with mock.patch.object(results, "write_results", side_effect=full):
        assert "frames.csv: cannot be written (No space" in error_line(main, capsys)
    assert main() == 0
    result, expected = (
        json.loads(text) for text in ((run / "results.json").read_text(), before)
    )
    assert result["protocols"] == expected["protocols"]
    assert result["weights_sha256"] == expected["weights_sha256"]
    assert records(run) == expected_records
    assert main() == 0 and "finished" in capsys.readouterr().out


def test_results_of_other_weights_are_not_reused(again, capsys):
    run, main = again
    stale = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**stale, "weights_sha256": "0"}))
    assert main() == 0
    assert "finished" not in capsys.readouterr().out
    new = json.loads((run / "results.json").read_text())
    assert new["weights_sha256"] == stale["weights_sha256"]


def test_the_network_is_saved_before_its_overlays(again, whole, capsys):
    run, main = again
    shutil.rmtree(run / "checkpoints" / str(TRAIN_STEPS))
    full = WriteError("two_0.png: cannot be written (No space left on device)")
    with mock.patch.object(results.Overlays, "__call__", side_effect=full):
        assert "two_0.png: cannot be written" in error_line(main, capsys)
    assert max(list_steps(run / "checkpoints")) == TRAIN_STEPS
    assert read_bodies(run / "checkpoints")[-1]["metric"] is None
    assert load_variables(run, "newest")[0]["params"]
    assert main() == 0
    assert read_bodies(run / "checkpoints")[-1]["metric"] is not None
    steps = [record["step"] for record in records(whole / "whole" / RUN)]
    assert [record["step"] for record in records(run)] == steps


def test_a_run_without_intact_steps_is_not_restarted(again, capsys):
    run, main = again
    expected = records(run)
    for path in run.glob("checkpoints/*/meta/metadata"):
        path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        line = error_line(main, capsys)
        assert "nothing can be resumed: every saved step is damaged" in line
        assert str(run / "checkpoints" / "damaged") in line
    assert records(run) == expected
    shutil.rmtree(run / "checkpoints" / "damaged")


def test_a_deleted_run_directory_is_reported(again, capsys):
    run, main = again
    (run / "results.json").unlink()
    write = results.write_results

    def delete_and_write(*arguments):
        shutil.rmtree(run)
        write(*arguments)

    with mock.patch.object(results, "write_results", delete_and_write):
        line = error_line(main, capsys)
    assert "was deleted or replaced during the run" in line


def test_the_lock_detects_a_replaced_folder(tmp_path):
    with run_lock(tmp_path / "run") as lock:
        lock.check()
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(RunGoneError, match="deleted or replaced"):
            lock.check()
        with run_lock(tmp_path / "run"), pytest.raises(RunGoneError):
            lock.check()


def test_metadata_names_the_validation_videos(again):
    run, _ = again
    assert read_metadata(run)["val_videos"] == ["two"]
