"""Scalars and pictures of a run for TensorBoard, by tensorboardX: no TensorFlow."""

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
    """Writes RUN/tensorboard; look at it with `tensorboard --logdir RUN`.

    Args:
        run_dir: of the run.
        step: where the run goes on; what was shown of later steps is taken back.

    Raises:
        ValueError: tensorboardX is not installed.
        WriteError: when something is added and nothing can be written any more.
    """

    def __init__(self, run_dir: Path, *, step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f"train.tensorboard needs tensorboardX: {install_command('tb')}, "
                "or leave it off (metrics.jsonl is always written)"
            ) from error
        self._writer = SummaryWriter(
            logdir=str(run_dir / "tensorboard"), purge_step=step + 1, flush_secs=10
        )

    def scalars(self, step: int, values: dict[str, Any]) -> None:
        """Adds the numbers among `values`; what is undefined (NaN) is none."""
        self._check()
        for name, value in values.items():
            if isinstance(value, int | float) and not math.isnan(value):
                self._writer.add_scalar(name, value, step)

    def prediction(
        self, step: int, source: FrameSource, video: int, result: Prediction
    ) -> None:
        """Adds frame, prediction and truth side by side."""
        self._check()
        info, classes = source.videos[video], source.classes
        picture = side_by_side(
            resize_image(source.image(video, result.frame), result.label.shape),
            result.label,
            result.truth,
            colors=[info.color for info in classes],
            names=[info.name for info in classes],
        )
        name = f"{info.name}/{info.frames[result.frame]}"
        self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        if self._writes():
            self._writer.close()

    def _check(self) -> None:
        """Makes sure that the library's thread still writes.

        It ends at the first error, a full disk for instance, and whoever adds to its
        queue then waits for ever.

        Raises:
            WriteError: it does not.
        """
        if not self._writes():
            raise WriteError(
                f"{self._writer.logdir}: cannot be written (the writing thread ended, "
                "as it does without space); go on with train.tensorboard off"
            )

    def _writes(self) -> bool:
        writer: Any = self._writer.file_writer
        return writer is None or writer.event_writer._worker.is_alive()
