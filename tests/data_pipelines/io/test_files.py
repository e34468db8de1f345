"""Atomic writes, folder locks, and full disks."""

import errno
import subprocess
import sys

import pytest

from data_pipelines.io.files import (
    WriteError,
    atomic_write,
    folder_lock,
    write_failure,
    write_text,
)
from data_pipelines.prepare.__main__ import main as prepare
from tests.support.tiny_run import ROOT, write_videos


def test_a_file_is_replaced_completely_or_kept(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "one"
    with pytest.raises(WriteError, match=r"a\.txt: cannot be written \(No space left"):
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "one" and [*tmp_path.iterdir()] == [path]
    with pytest.raises(WriteError, match="none/a.txt: cannot be written"):
        write_text(tmp_path / "none" / "a.txt", "")


def test_write_failures_are_found_in_wrapped_errors():
    try:
        try:
            raise RuntimeError("write() failed: No space left on device; at byte 7")
        except RuntimeError as error:
            raise ValueError("not finished") from error
    except ValueError as error:
        assert write_failure(error) == "No space left on device"
    assert not write_failure(ValueError("other"))


def test_a_folder_is_locked_by_one_process(tmp_path):
    folder = tmp_path / "work"
    with folder_lock(folder) as first, folder_lock(folder) as second:
        assert first and not second
    with folder_lock(folder) as third:
        assert third


def test_prepare_is_refused_while_another_process_prepares(tmp_path, capsys):
    root = write_videos(tmp_path / "raw", frames=1)
    command = ["--dataset", "folder", "--raw", str(root), "--out", f"{tmp_path}/out"]
    with folder_lock(tmp_path / ".out.partial"):
        assert prepare(command) == 2
    assert "another process prepares into it" in capsys.readouterr().err
    assert prepare(command) == 0


def test_prepare_without_disk_space_fails_with_one_line(tmp_path):
    root = write_videos(tmp_path / "raw", frames=3)
    command = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000,) * 2);"
        "from data_pipelines.prepare.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["--dataset", "folder", "--raw", root, "--out", tmp_path / "out"]
    result = subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert (
        result.stderr == f"error: {tmp_path}/out: cannot be written (File too large)\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
