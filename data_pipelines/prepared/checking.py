"""What a manifest may hold: types, sizes and names, as of a stranger's file."""

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
"""What reading a damaged JSON file can raise."""

_MOST_CLASSES = 255


def check_manifest(content: dict[str, Any]) -> None:
    """Checks a manifest's fields before anything is made of them.

    Raises:
        ValueError, KeyError: names the frame and field that is wrong.
    """
    wanted = {"request", "classes", "resize", "records", "versions", "frames"}
    if set(content) != wanted:
        raise ValueError(f"fields {_list(set(content) ^ wanted)}")
    _need(isinstance(content["request"], dict), "request", "a group of fields")
    for field, value in content["request"].items():
        plain = value is None or isinstance(value, str | int) or _numbers(value, 2)
        _need(plain, f"request: {field}", "text, a number or two")
        if isinstance(value, str) and value and (fault := text_fault(value)):
            raise ValueError(f"request: {field} {fault}")
    _need(isinstance(content["resize"], str), "resize", "text")
    _need(_texts(content["versions"]), "versions", "texts")
    _need(isinstance(content["records"], str), "records", "a folder in this one")
    for part in content["records"].split("/"):
        if fault := name_fault(part):
            raise ValueError(f"records: {content['records']!r} {fault}")
    classes, frames = content["classes"], content["frames"]
    _need(isinstance(classes, list), "classes", "a list")
    _need(2 <= len(classes) <= _MOST_CLASSES, "classes", f"2 to {_MOST_CLASSES}")
    for number, info in enumerate(classes):
        _need(set(info) == {"name", "color"}, f"class {number}", "a name and a color")
        _need(isinstance(info["name"], str), f"class {number}: name", "text")
        if fault := text_fault(info["name"]):
            raise ValueError(f"class {number}: the name {info['name']!r} {fault}")
        _need(_numbers(info["color"], 3, 255), f"class {number}", "a color")
    _need(len({info["name"] for info in classes}) == len(classes), "classes", "names")
    _need(isinstance(frames, list) and bool(frames), "frames", "a list")
    for number, entry in enumerate(frames):
        _check_entry(entry, f"frame {number}", len(classes))
    seen = set()
    for video, group in groupby(frames, lambda entry: entry["video"]):
        entries = list(group)
        _need(video not in seen, f"video {video!r}", "in one piece")
        seen.add(video)
        order = [entry["index"] for entry in entries]
        names = {entry["frame"] for entry in entries}
        whole = order == list(range(len(entries))) and len(names) == len(entries)
        _need(whole, f"video {video!r}", "frames by number, each once")


def _check_entry(entry: dict[str, Any], place: str, classes: int) -> None:
    for field in ("video", "frame"):
        _need(isinstance(entry[field], str), f"{place}: {field}", "a name")
        if fault := name_fault(entry[field]):
            raise ValueError(f"{place}: the {field} {entry[field]!r} {fault}")
    _need(_count(entry["index"]), f"{place}: index", "a number")
    _need(_count(entry["ignored"]), f"{place}: ignored", "a number")
    sources, label = entry["sources"], entry["label_size"] is not None
    _need(_texts(sources) and bool(sources), f"{place}: sources", "hashes")
    for path in sources:
        if fault := text_fault(path):
            raise ValueError(f"{place}: the source {path!r} {fault}")
    for field in ("image_size", "label_size") if label else ("image_size",):
        _need(_numbers(entry[field], 2), f"{place}: {field}", "two numbers")
        if fault := size_fault(*entry[field]):
            raise ValueError(f"{place}: {field}: {fault}")
    for field in ("image_sha256", "look"):
        _need(_digest(entry[field]), f"{place}: {field}", "64 hexadecimal digits")
    _need(
        _digest(entry["label_sha256"]) if label else entry["label_sha256"] is None,
        f"{place}: label_sha256",
        "64 hexadecimal digits where there is a label",
    )
    count = classes if label else 0
    _need(_numbers(entry["histogram"], count), f"{place}: histogram", f"{count} counts")
    odd = entry["odd"]
    _need(isinstance(odd, dict), f"{place}: odd", "counts by file")
    for path, counts in odd.items():
        known = isinstance(counts, dict) and all(map(_count, counts.values()))
        texts = [path, *counts] if known else [""]
        _need(not any(map(text_fault, texts)), f"{place}: odd", "counts by file")


def _need(ok: bool, field: str, what: str) -> None:
    if not ok:
        raise ValueError(f"{field} must be {what}")


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _numbers(value: Any, length: int, most: int = 1 << 53) -> bool:
    known = isinstance(value, list) and len(value) == length
    return known and all(_count(part) and part <= most for part in value)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) for text in value.values()
    )


def _list(names: set[str]) -> str:
    return ", ".join(sorted(map(repr, names)))
