"""`metrics.jsonl`, the record of a run, and the line that shows how far it is.

A record holds what a run would come to again, and no times of day or speeds: a run that
was killed and went on leaves the same bytes as one that was not.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO


class RunLog:
    """Appends records, one JSON object a line, and speaks to people.

    Args:
        folder: of the run.
        step: where the run goes on; records of later steps are dropped, since the
            steps they tell of are about to be done again.
        total_steps: of the whole run, for the remaining time.
        scored: whether the validation at `step`, if there is one, is done; otherwise
            its record is dropped as well.
        stream: where progress is shown, standard output if None; a terminal gets one
            line that changes.

    Raises:
        ValueError: the file holds a line that is no record, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        total_steps: int,
        scored: bool = True,
        stream: TextIO | None = None,
    ):
        def stays(record: dict[str, Any]) -> bool:
            redone = not scored and "val_iou" in record
            return record["step"] < step + (not redone)

        self._path = folder / "metrics.jsonl"
        with _naming(self._path):
            _keep_lines(self._path, stays)
            self._file = self._path.open("a", encoding="utf-8")
        self._first, self._total = step, total_steps
        self._stream = stream or sys.stdout
        self._began = time.monotonic()
        self._live = self._stream.isatty()

    def record(self, step: int, **values: Any) -> None:
        """Appends {"step": step, ...}; JSON has no NaN, so that becomes null."""
        plain = {
            name: None if isinstance(x, float) and not math.isfinite(x) else x
            for name, x in values.items()
        }
        line = json.dumps({"step": step, **plain}, allow_nan=False)
        with _naming(self._path):
            self._file.write(f"{line}\n")
            self._file.flush()

    def sync(self) -> None:
        """Returns once all records are on the disk; before a checkpoint is."""
        with _naming(self._path):
            os.fsync(self._file.fileno())

    def progress(self, step: int, text: str) -> None:
        """Shows how far the run is."""
        done = max(1, step - self._first)
        left = (time.monotonic() - self._began) / done * (self._total - step)
        line = f"step {step}/{self._total} · {text} · {_clock(left)} left"
        if self._live:
            bar = "█" * round(20 * step / self._total)
            line = f"\r\x1b[K{bar:░<20} {line}"
        self._stream.write(line if self._live else line + "\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take was told
            self._file.close()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from error


def _keep_lines(path: Path, stays: Callable[[dict[str, Any]], bool]) -> None:
    """Drops records, and a last line that a kill cut short. All or nothing."""
    if not path.exists():
        return
    # A byte that is not UTF-8 makes its line no record, whatever takes its place.
    text, kept = path.read_text(encoding="utf-8", errors="replace"), []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            if stays(json.loads(line)):
                kept.append(f"{line}\n")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path}: line {number} is no record of a run; remove it"
            ) from error
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
