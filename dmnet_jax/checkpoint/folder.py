"""The folder of a run's checkpoints: which steps are there, intact and worth keeping.

A step is a folder with its number for a name; `meta/metadata` in it holds a body and
the body's SHA-256. A step is written and read back in `incoming` and then renamed into
place; deleting is renaming into `trash` first. So nothing half-written or half-deleted
is ever listed. What is found damaged moves to `damaged`, for a person to look at.
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
    """A checkpoint could not be saved, found or fitted; one line says which and why."""


class Damaged(Exception):
    """A checkpoint's bytes are not what was saved."""


def listed(directory: Path) -> list[int]:
    """Steps that have a folder, damaged or not, oldest first."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9]\d*", name))


def candidates(directory: Path, which: int | Which) -> list[int]:
    """Steps to try, the wanted one first.

    Raises:
        CheckpointError: there is none.
    """
    steps = listed(directory)
    if not steps:
        raise CheckpointError(f"{directory}: no checkpoint here; train first")
    if which == "newest":
        return steps[::-1]
    if which == "best":
        intact = bodies(directory)
        # A step that cannot say how good it was comes first, to be reported.
        unknown = sorted(set(steps) - {body["step"] for body in intact})
        ranked = unknown + _by_metric(intact)[::-1]
        if not ranked:
            raise CheckpointError(
                f"{directory}: no checkpoint has a metric, so none is best; "
                "ask for the newest"
            )
        return ranked
    if which not in steps:
        have = ", ".join(map(str, steps))
        raise CheckpointError(f"{directory}: no step {which}; there are {have}")
    return [which]


def read_body(directory: Path, step: int) -> dict[str, Any]:
    """What a step says of itself, or `Damaged`."""
    try:
        text = (directory / str(step) / "meta" / "metadata").read_bytes()
        envelope = json.loads(text)
        body = envelope["body"]
        intact = envelope["sha256"] == _digest(body)
        told = _fault_of(body, step)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise Damaged(f"its metadata cannot be read: {reason_of(error)}") from error
    if not intact:
        raise Damaged("its metadata does not match its checksum")
    if told:
        raise Damaged(f"its metadata cannot be used: {told}")
    return body


def _fault_of(body: dict[str, Any], step: int) -> str:
    """What a body says that none can, whoever sealed it; empty if nothing."""
    metric, leaves = body["metric"], body["leaves"]
    if type(body["step"]) is not int or body["step"] != step:
        return "it is of another step"
    if metric is not None and not (type(metric) is float and math.isfinite(metric)):
        return "its metric is no number"
    if not isinstance(body["metadata"], dict) or not isinstance(leaves, dict):
        return "it does not describe a state"
    for name, leaf in leaves.items():
        shape = leaf["shape"]
        sizes = isinstance(shape, list) and all(
            type(size) is int and 0 <= size < 1 << 40 for size in shape
        )
        texts = [leaf["dtype"], leaf["sha256"]]
        texts += [leaf[field] for field in ("key", "impl") if leaf[field] is not None]
        if not sizes or not all(isinstance(text, str) for text in texts):
            return f"{name!r} is not described"
    return ""


def bodies(directory: Path) -> list[dict[str, Any]]:
    """Bodies of the steps whose metadata is intact, oldest first."""
    found = []
    for step in listed(directory):
        try:
            found.append(read_body(directory, step))
        except Damaged:
            continue
    return found


def _by_metric(intact: list[dict[str, Any]]) -> list[int]:
    """Steps that have a metric, the best last."""
    ranked = [(b["metric"], b["step"]) for b in intact if b["metric"] is not None]
    return [step for _, step in sorted(ranked)]


def publish(directory: Path, step: int) -> None:
    """Moves a finished step from `incoming` into place, and an older one of it out.

    Cut short between the two renames, it leaves the older one in `trash`, from where
    `clear_leftovers` puts it back.
    """
    place = directory / str(step)
    if place.exists():
        shutil.rmtree(directory / _TRASH, ignore_errors=True)
        (directory / _TRASH).mkdir()
        place.rename(directory / _TRASH / str(step))
    (directory / INCOMING / str(step)).rename(place)


def prune(directory: Path) -> None:
    """Deletes all but the newest and the best; a deletion cut short leaves no step."""
    intact = bodies(directory)
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
    """Removes what an interrupted writer left; for the only writer, at its start."""
    remove_incoming(directory)
    newest = max(listed(directory), default=-1)
    for step in listed(directory / _TRASH):
        # Only a step that was being replaced is newer than all that are in place.
        if step > newest:
            (directory / _TRASH / str(step)).rename(directory / str(step))
    for step in listed(directory):
        try:
            read_body(directory, step)
        except Damaged as damage:
            set_aside(directory, step, str(damage))
    prune(directory)


def remove_incoming(directory: Path) -> None:
    """Removes a step that was being written; it was never in place."""
    shutil.rmtree(directory / INCOMING, ignore_errors=True)


def set_aside(directory: Path, step: int, reason: str) -> None:
    """Moves a damaged step out of the way of the one that will replace it."""
    folder = directory / _DAMAGED
    folder.mkdir(exist_ok=True)
    taken = sum(path.name.split("-")[0] == str(step) for path in folder.iterdir())
    place = folder / (f"{step}-{taken}" if taken else str(step))
    (directory / str(step)).rename(place)
    _log.warning("%s: damaged step %d moved to %s: %s", directory, step, place, reason)


def sealed(body: dict[str, Any]) -> dict[str, Any]:
    """The JSON that `read_body` reads: a body and its digest."""
    return {"sha256": _digest(body), "body": body}


def damaged_steps(directory: Path) -> list[str]:
    """Names of the steps that were found damaged and lie aside."""
    folder = directory / _DAMAGED
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(names)


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def reason_of(error: BaseException) -> str:
    """The part of an error a person can act on, in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'|OS error (\d+)", text)
    if number:
        return os.strerror(int(number[1] or number[2]))
    first = text.strip().splitlines()[0][:200] if text.strip() else ""
    return f"{type(error).__name__}: {first}"
