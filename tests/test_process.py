"""Run locks and stop requests, with real processes and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmnet_jax.process import RunInUseError, StopRequest, run_lock

ROOT = Path(__file__).parents[1]


def start(code, *arguments):
    """Starts a Python process and waits until it prints "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


HOLD = """
import sys, time
from dmnet_jax.process import run_lock
with run_lock(sys.argv[1]):
    print("ready")
    time.sleep(60)
"""


def test_lock_names_its_holder_and_ends_with_the_process(tmp_path):
    holder = start(HOLD, tmp_path / "run")
    try:
        with pytest.raises(RunInUseError, match=f"process {holder.pid} on "):
            with run_lock(tmp_path / "run"):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with run_lock(tmp_path / "run"):
        assert (
            (tmp_path / "run" / "lock")
            .read_text()
            .startswith(f"process {os.getpid()} on ")
        )


def test_lock_is_released_on_exit_and_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with run_lock(tmp_path):
            _ = 1 / 0
    with run_lock(tmp_path), run_lock(tmp_path / "other"):
        with pytest.raises(RunInUseError):
            with run_lock(tmp_path):
                pass


def test_lock_in_a_folder_that_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        with run_lock(tmp_path / "file" / "run"):
            pass


WORK = """
import sys, time
from dmnet_jax.process import StopRequest
with StopRequest() as stop:
    print("ready")
    while not stop.requested or sys.argv[1] == "stubborn":
        time.sleep(0.01)
print("saved")
sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_first_signal_lets_the_loop_finish(number, code):
    worker = start(WORK, "obedient")
    worker.send_signal(number)
    out, err = worker.communicate(timeout=20)
    assert (worker.returncode, out) == (code, "saved\n")
    assert "stopping after this step" in err


def test_second_signal_ends_the_process_immediately():
    worker = start(WORK, "stubborn")
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    assert "stopping" in worker.stderr.readline()
    start_time = time.monotonic()
    worker.send_signal(signal.SIGINT)
    out, _ = worker.communicate(timeout=20)
    assert (worker.returncode, out) == (130, "")
    assert time.monotonic() - start_time < 5


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) != before[0]
    after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert after == before
    assert (stop.requested, stop.exit_code) == (False, 0)


def test_a_stop_of_another_process_counts_as_a_signal():
    with StopRequest() as stop:
        stop.request()
    assert (stop.requested, stop.exit_code) == (True, 143)
