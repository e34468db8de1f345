"""TensorBoard logging with tensorboardX, without TensorFlow."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.frames import FrameSource, resize_image
from data_pipelines.io.environment import install_command
from data_pipelines.io.files import WriteError
from dmnet_jax.evaluation import Prediction
from dmnet_jax.video.overlay import side_by_side


class Board:
    """Writes RUN/tensorboard; view it with `tensorboard --logdir RUN`.

    Args:
        run_dir: the run directory.
        step: step at which the run starts or resumes; events of later steps are
            purged.

    Raises:
        ValueError: tensorboardX is not installed.
        WriteError: an event is added after writing has failed.
    """

    def __init__(self, run_dir: Path, *, step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f"train.tensorboard needs tensorboardX: {install_command('tb')}, "
                "or turn it off (metrics.jsonl is always written)"
            ) from error
        self._writer = SummaryWriter(
            logdir=str(run_dir / "tensorboard"), purge_step=step + 1, flush_secs=10
        )

    def add_scalars(self, step: int, values: dict[str, Any]) -> None:
        """Adds the numbers among `values`; skips NaN."""
        self._check()
        for name, value in values.items():
            if isinstance(value, int | float) and not math.isnan(value):
                self._writer.add_scalar(name, value, step)

    def add_prediction(
        self, step: int, source: FrameSource, video: int, result: Prediction
    ) -> None:
        """Adds an image of frame, prediction and ground truth, side by side."""
        self._check()
        info, classes = source.videos[video], source.classes
        image = side_by_side(
            resize_image(source.image(video, result.frame), result.label.shape),
            result.label,
            result.truth,
            colors=[info.color for info in classes],
            names=[info.name for info in classes],
        )
        name = f"{info.name}/{info.frames[result.frame]}"
        self._writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Closes the event file, unless writing has failed."""
        if self._is_writing():
            self._writer.close()

    def _check(self) -> None:
        """Checks that the library's writer thread is alive.

        The thread ends at the first error, such as a full disk. Adding events would
        then block forever.

        Raises:
            WriteError: the thread has ended.
        """
        if not self._is_writing():
            raise WriteError(
                f"{self._writer.logdir}: cannot be written (the writer thread ended; "
                "the disk may be full); resume with train.tensorboard off"
            )

    def _is_writing(self) -> bool:
        writer: Any = self._writer.file_writer
        return writer is None or writer.event_writer._worker.is_alive()
