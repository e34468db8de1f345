"""Validates manifests, which are untrusted: types, sizes and names."""

import re
from itertools import groupby
from typing import Any

from data_pipelines.io.images import size_fault
from data_pipelines.io.names import name_fault, text_fault

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions that reading a damaged JSON file may raise."""

_MAX_CLASSES = 255


def check_manifest(content: dict[str, Any]) -> None:
    """Checks the fields of a manifest.

    Raises:
        ValueError, KeyError: a field is invalid; names the frame and the field.
    """
    fields = {"request", "classes", "resize", "records", "versions", "frames"}
    if set(content) != fields:
        names = ", ".join(sorted(map(repr, set(content) ^ fields)))
        raise ValueError(f"missing or unknown fields {names}")
    _require(isinstance(content["request"], dict), "request", "a group of fields")
    for field, value in content["request"].items():
        valid = value is None or isinstance(value, str | int) or _is_ints(value, 2)
        _require(valid, f"request: {field}", "text or one or two numbers")
        if isinstance(value, str) and value and (fault := text_fault(value)):
            raise ValueError(f"request: {field} {fault}")
    _require(isinstance(content["resize"], str), "resize", "text")
    _require(_is_text_dict(content["versions"]), "versions", "text by name")
    _require(isinstance(content["records"], str), "records", "a relative folder")
    for part in content["records"].split("/"):
        if fault := name_fault(part):
            raise ValueError(f"records: {content['records']!r} {fault}")
    classes, frames = content["classes"], content["frames"]
    _check_classes(classes)
    _require(isinstance(frames, list) and bool(frames), "frames", "a non-empty list")
    for number, entry in enumerate(frames):
        _check_entry(entry, f"frame {number}", len(classes))
    videos = set()
    for video, group in groupby(frames, lambda entry: entry["video"]):
        entries = list(group)
        _require(video not in videos, f"video {video!r}", "contiguous")
        videos.add(video)
        indices = [entry["index"] for entry in entries]
        names = {entry["frame"] for entry in entries}
        valid = indices == list(range(len(entries))) and len(names) == len(entries)
        _require(valid, f"video {video!r}", "a list of frames by index, each once")


def _check_classes(classes: Any) -> None:
    """Raises a ValueError if the classes are invalid."""
    _require(isinstance(classes, list), "classes", "a list")
    valid = 2 <= len(classes) <= _MAX_CLASSES
    _require(valid, "classes", f"a list of 2 to {_MAX_CLASSES}")
    for number, info in enumerate(classes):
        place = f"class {number}"
        _require(set(info) == {"name", "color"}, place, "a name and a color")
        _require(isinstance(info["name"], str), f"{place}: name", "text")
        if fault := text_fault(info["name"]):
            raise ValueError(f"{place}: the name {info['name']!r} {fault}")
        _require(_is_ints(info["color"], 3, 255), f"{place}: color", "3 numbers 0..255")
    names = {info["name"] for info in classes}
    _require(len(names) == len(classes), "class names", "unique")


def _check_entry(entry: dict[str, Any], place: str, num_classes: int) -> None:
    """Raises a ValueError if the entry of a frame is invalid.

    Args:
        entry: the fields of a `FrameEntry`.
        place: place of the entry, for the message.
        num_classes: number of classes.
    """
    for field in ("video", "frame"):
        _require(isinstance(entry[field], str), f"{place}: {field}", "a name")
        if fault := name_fault(entry[field]):
            raise ValueError(f"{place}: the {field} {entry[field]!r} {fault}")
    _require(_is_count(entry["index"]), f"{place}: index", "a number")
    _require(_is_count(entry["ignored"]), f"{place}: ignored", "a number")
    sources, has_label = entry["sources"], entry["label_size"] is not None
    valid = _is_text_dict(sources) and bool(sources)
    _require(valid, f"{place}: sources", "hashes by path")
    for path in sources:
        if fault := text_fault(path):
            raise ValueError(f"{place}: the source {path!r} {fault}")
    for field in ("image_size", "label_size") if has_label else ("image_size",):
        _require(_is_ints(entry[field], 2), f"{place}: {field}", "two numbers")
        if fault := size_fault(*entry[field]):
            raise ValueError(f"{place}: {field}: {fault}")
    for field in ("image_sha256", "look"):
        _require(_is_digest(entry[field]), f"{place}: {field}", "64 hexadecimal digits")
    digest = entry["label_sha256"]
    valid = _is_digest(digest) if has_label else digest is None
    _require(
        valid, f"{place}: label_sha256", "64 hexadecimal digits, null without a label"
    )
    count = num_classes if has_label else 0
    valid = _is_ints(entry["histogram"], count)
    _require(valid, f"{place}: histogram", f"a list of {count} counts")
    odd = entry["odd"]
    _require(isinstance(odd, dict), f"{place}: odd", "counts by file")
    for path, counts in odd.items():
        valid = isinstance(counts, dict) and all(map(_is_count, counts.values()))
        texts = [path, *counts] if valid else [""]
        _require(not any(map(text_fault, texts)), f"{place}: odd", "counts by file")


def _require(valid: bool, field: str, expected: str) -> None:
    """Raises a ValueError that says what was expected, unless `valid`."""
    if not valid:
        raise ValueError(f"{field} must be {expected}")


def _is_count(value: Any) -> bool:
    # Larger integers are not exact in all JSON readers.
    return type(value) is int and 0 <= value < 1 << 53


def _is_ints(value: Any, length: int, maximum: int = 1 << 53) -> bool:
    valid = isinstance(value, list) and len(value) == length
    return valid and all(_is_count(part) and part <= maximum for part in value)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


def _is_text_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) for text in value.values()
    )
