"""The checkpoint folder of a run: listing, publishing and deleting steps.

A step is a folder named by its number. Its file `meta/metadata` contains a body and the
SHA-256 of the body. A step is written to `incoming`, read back, and then renamed into
place; to delete it, it is first renamed into `trash`. A partially written or deleted
step is therefore never listed. Damaged steps are moved to `damaged` for inspection.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

Which = Literal["newest", "best"]

KEEP_NEWEST = 2
KEEP_BEST = 2

INCOMING = "incoming"
_TRASH = "trash"
_DAMAGED = "damaged"
_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint cannot be saved, found or restored; one line names it and why."""


class DamagedError(Exception):
    """The contents of a checkpoint are not what was saved."""


def list_steps(directory: Path) -> list[int]:
    """Returns the steps that have a folder, damaged or not, oldest first."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9]\d*", name))


def candidates(directory: Path, which: int | Which) -> list[int]:
    """Returns the steps to try, in order of preference.

    Raises:
        CheckpointError: there is none.
    """
    steps = list_steps(directory)
    if not steps:
        raise CheckpointError(f"{directory}: no checkpoint here; train first")
    if which == "newest":
        return steps[::-1]
    if which == "best":
        intact = read_bodies(directory)
        # Steps with an unknown metric come first, so that the damage is reported.
        unknown = sorted(set(steps) - {body["step"] for body in intact})
        ranked = unknown + _by_metric(intact)[::-1]
        if not ranked:
            raise CheckpointError(
                f"{directory}: no checkpoint has a metric, so there is no best one; "
                "use the newest"
            )
        return ranked
    if which not in steps:
        saved = ", ".join(map(str, steps))
        raise CheckpointError(f"{directory}: no step {which}; saved steps: {saved}")
    return [which]


def read_body(directory: Path, step: int) -> dict[str, Any]:
    """Reads the body of a step's metadata.

    Raises:
        DamagedError: the metadata is unreadable, invalid, or not as saved.
    """
    try:
        text = (directory / str(step) / "meta" / "metadata").read_bytes()
        envelope = json.loads(text)
        body = envelope["body"]
        intact = envelope["sha256"] == _digest(body)
        fault = _find_fault(body, step)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = short_reason(error)
        raise DamagedError(f"its metadata cannot be read: {reason}") from error
    if not intact:
        raise DamagedError("its metadata does not match its checksum")
    if fault:
        raise DamagedError(f"its metadata is invalid: {fault}")
    return body


def _find_fault(body: dict[str, Any], step: int) -> str:
    """Returns what is invalid in a body with a correct digest; empty if nothing is."""
    metric, leaves = body["metric"], body["leaves"]
    if type(body["step"]) is not int or body["step"] != step:
        return "its step is not that of the folder"
    if metric is not None and not (type(metric) is float and math.isfinite(metric)):
        return "its metric is not a number"
    if not isinstance(body["metadata"], dict) or not isinstance(leaves, dict):
        return "it does not describe a state"
    for name, leaf in leaves.items():
        shape = leaf["shape"]
        is_shape = isinstance(shape, list) and all(
            type(size) is int and 0 <= size < 1 << 40 for size in shape
        )
        texts = [leaf["dtype"], leaf["sha256"]]
        texts += [leaf[field] for field in ("key", "impl") if leaf[field] is not None]
        if not is_shape or not all(isinstance(text, str) for text in texts):
            return f"the description of {name!r} is invalid"
    return ""


def read_bodies(directory: Path) -> list[dict[str, Any]]:
    """Reads the bodies of the steps with intact metadata, oldest first."""
    bodies = []
    for step in list_steps(directory):
        try:
            bodies.append(read_body(directory, step))
        except DamagedError:
            continue
    return bodies


def _by_metric(bodies: list[dict[str, Any]]) -> list[int]:
    """Returns the steps that have a metric, the best last."""
    ranked = [(b["metric"], b["step"]) for b in bodies if b["metric"] is not None]
    return [step for _, step in sorted(ranked)]


def publish(directory: Path, step: int) -> None:
    """Moves a finished step from `incoming` into place, replacing an existing one.

    If this is interrupted between the two renames, the existing step is in `trash`, and
    `clear_leftovers` restores it.
    """
    path = directory / str(step)
    if path.exists():
        shutil.rmtree(directory / _TRASH, ignore_errors=True)
        (directory / _TRASH).mkdir()
        path.rename(directory / _TRASH / str(step))
    (directory / INCOMING / str(step)).rename(path)


def prune(directory: Path) -> None:
    """Deletes all but the newest and the best steps, safe against interruption."""
    intact = read_bodies(directory)
    keep = {body["step"] for body in intact[-KEEP_NEWEST:]}
    keep.update(_by_metric(intact)[-KEEP_BEST:])
    trash = directory / _TRASH
    shutil.rmtree(trash, ignore_errors=True)
    for body in intact:
        if body["step"] not in keep:
            trash.mkdir(exist_ok=True)
            (directory / str(body["step"])).rename(trash / str(body["step"]))
    shutil.rmtree(trash, ignore_errors=True)


def clear_leftovers(directory: Path) -> None:
    """Cleans up after an interrupted writer. Call it as the only writer, at start."""
    remove_incoming(directory)
    newest = max(list_steps(directory), default=-1)
    for step in list_steps(directory / _TRASH):
        # A step in `trash` that is newer than all others was being replaced.
        if step > newest:
            (directory / _TRASH / str(step)).rename(directory / str(step))
    for step in list_steps(directory):
        try:
            read_body(directory, step)
        except DamagedError as error:
            set_aside(directory, step, str(error))
    prune(directory)


def remove_incoming(directory: Path) -> None:
    """Removes incomplete steps."""
    shutil.rmtree(directory / INCOMING, ignore_errors=True)


def set_aside(directory: Path, step: int, reason: str) -> None:
    """Moves a damaged step to `damaged`, so that its number can be used again."""
    folder = directory / _DAMAGED
    folder.mkdir(exist_ok=True)
    count = sum(path.name.split("-")[0] == str(step) for path in folder.iterdir())
    target = folder / (f"{step}-{count}" if count else str(step))
    (directory / str(step)).rename(target)
    _log.warning("%s: damaged step %d moved to %s: %s", directory, step, target, reason)


def seal(body: dict[str, Any]) -> dict[str, Any]:
    """Adds a digest to a body; `read_body` reads the result."""
    return {"sha256": _digest(body), "body": body}


def damaged_steps(directory: Path) -> list[str]:
    """Returns the names of the folders in `damaged`."""
    folder = directory / _DAMAGED
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(names)


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def short_reason(error: BaseException) -> str:
    """Returns the most useful part of an error message, in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'|OS error (\d+)", text)
    if number:
        return os.strerror(int(number[1] or number[2]))
    first = text.strip().splitlines()[0][:200] if text.strip() else ""
    return f"{type(error).__name__}: {first}"
