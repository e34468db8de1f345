"""The records of a run, `metrics.jsonl`, and its progress line.

Records contain reproducible values only, no timestamps or speeds: a run that was killed
and resumed leaves the same bytes as an uninterrupted one.
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

from dmnet_jax.process import format_duration


class RunLog:
    """Appends records, one JSON object per line, and prints progress.

    Args:
        folder: the run directory.
        step: step at which the run starts or resumes. Records of later steps are
            dropped, because those steps will be repeated.
        total_steps: number of steps of the whole run, for the remaining time.
        scored: whether the validation at `step`, if any, is done. Otherwise its record
            is dropped too.
        stream: stream for progress; None for standard output. On a terminal, one line
            is updated in place.

    Raises:
        ValueError: the file contains a line that is not a record, or cannot be
            written.
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
        def is_current(record: dict[str, Any]) -> bool:
            if "val_iou" in record and not scored:
                return record["step"] < step
            return record["step"] <= step

        self._path = folder / "metrics.jsonl"
        with _write_errors(self._path):
            _filter_lines(self._path, is_current)
            self._file = self._path.open("a", encoding="utf-8")
        self._first, self._total = step, total_steps
        self._stream = stream or sys.stdout
        self._start = time.monotonic()
        self._live = self._stream.isatty()

    def record(self, step: int, **values: Any) -> None:
        """Appends {"step": step, ...}. NaN and infinity become null, as in JSON."""
        finite = {
            name: None if isinstance(x, float) and not math.isfinite(x) else x
            for name, x in values.items()
        }
        line = json.dumps({"step": step, **finite}, allow_nan=False)
        with _write_errors(self._path):
            self._file.write(f"{line}\n")
            self._file.flush()

    def sync(self) -> None:
        """Blocks until all records are on disk. Call it before saving a checkpoint."""
        with _write_errors(self._path):
            os.fsync(self._file.fileno())

    def progress(self, step: int, text: str) -> None:
        """Shows the step, a text and the remaining time."""
        done = max(1, step - self._first)
        remaining = (time.monotonic() - self._start) / done * (self._total - step)
        line = f"step {step}/{self._total} · {text} · {format_duration(remaining)} left"
        if self._live:
            bar = "█" * round(20 * step / self._total)
            line = f"\r\x1b[K{bar:░<20} {line}"
        self._stream.write(line if self._live else line + "\n")
        self._stream.flush()

    def print(self, text: str) -> None:
        """Prints a line, in place of the progress line on a terminal."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was already reported
            self._file.close()


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Converts an OSError into a ValueError that names the file."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from error


def _filter_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drops records, and an incomplete last line, by atomically replacing the file."""
    if not path.exists():
        return
    # Bytes that are not UTF-8 are replaced by characters that are not valid JSON.
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            if keep(json.loads(line)):
                lines.append(f"{line}\n")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path}: line {number} is not a record of a run; remove it"
            ) from error
    new_path = path.with_suffix(".new")
    with new_path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    new_path.replace(path)
