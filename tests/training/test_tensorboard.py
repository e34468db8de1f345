"""TensorBoard logging after its writer thread has ended: an error, not a hang."""

import errno
import time

import pytest

from data_pipelines.io.files import WriteError
from dmnet_jax.training.tensorboard import Board

pytest.importorskip("tensorboardX")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_ends_the_run_and_does_not_hang_it(tmp_path, monkeypatch):
    from tensorboardX.event_file_writer import EventsWriter

    board = Board(tmp_path, step=0)
    board.add_scalars(1, {"loss": 1.0, "nothing": float("nan"), "name": "x"})
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(self, event):
        raise full

    monkeypatch.setattr(EventsWriter, "write_event", fail)
    deadline = time.monotonic() + 10
    with pytest.raises(WriteError, match="tensorboard: cannot be written"):
        while time.monotonic() < deadline:
            board.add_scalars(2, {"loss": 1.0})
            time.sleep(0.05)
    board.close()
