"""Files that are whole or absent, one writer a folder, and disks that are full."""

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


def test_a_file_is_replaced_whole_or_kept(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as fresh:
        fresh.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "one"
    with pytest.raises(WriteError, match=r"a\.txt: cannot be written \(No space left"):
        with atomic_write(path) as fresh:
            fresh.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "one" and [*tmp_path.iterdir()] == [path]
    with pytest.raises(WriteError, match="none/a.txt: cannot be written"):
        write_text(tmp_path / "none" / "a.txt", "")


def test_the_reason_is_found_in_what_libraries_raise():
    try:
        try:
            raise RuntimeError("write() failed: No space left on device; at byte 7")
        except RuntimeError as error:
            raise ValueError("not finished") from error
    except ValueError as error:
        assert write_failure(error) == "No space left on device"
    assert not write_failure(ValueError("other"))


def test_a_folder_is_held_by_one(tmp_path):
    folder = tmp_path / "work"
    with folder_lock(folder) as first, folder_lock(folder) as second:
        assert first and not second
    with folder_lock(folder) as third:
        assert third


def test_prepare_is_refused_where_another_one_works(tmp_path, capsys):
    root = write_videos(tmp_path / "raw", frames=1)
    command = ["--dataset", "folder", "--raw", str(root), "--out", f"{tmp_path}/out"]
    with folder_lock(tmp_path / ".out.partial"):
        assert prepare(command) == 2
    assert "another process prepares into it" in capsys.readouterr().err
    assert prepare(command) == 0


def test_prepare_without_space_says_it_in_one_line(tmp_path):
    root = write_videos(tmp_path / "raw", frames=3)
    command = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000,) * 2);"
        "from data_pipelines.prepare.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["--dataset", "folder", "--raw", root, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/out: cannot be written (File too large)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
