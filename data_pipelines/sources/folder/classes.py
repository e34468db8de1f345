"""Reads `classes.json`: the names and colors of a user's classes, mask value 0 first.

[{"name": "background", "color": [0, 0, 0]}, ...]
"""

import colorsys
import json
from pathlib import Path

from data_pipelines.frames import IGNORE, ClassInfo
from data_pipelines.io.names import text_fault

_EXAMPLE = '[{"name": "background", "color": [0, 0, 0]}, ...]'


def read_classes(file: Path, faults: list[str]) -> tuple[ClassInfo, ...]:
    """Returns the classes in `file`; if it is invalid, () and adds to `faults`."""
    num_faults = len(faults)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        faults.append(f"{file}: not valid JSON ({error}); write {_EXAMPLE}")
        return ()
    except OSError as error:
        faults.append(f"{file}: cannot be read ({error.strerror})")
        return ()
    if not isinstance(entries, list) or not 2 <= len(entries) <= IGNORE:
        faults.append(f"{file}: must list 2 to {IGNORE} classes: {_EXAMPLE}")
        return ()
    table = []
    for i, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        name, color = fields.get("name"), fields.get("color", list(class_color(i)))
        if not isinstance(name, str) or not name:
            faults.append(f"{file}: class {i}: field name must be text: {_EXAMPLE}")
        elif fault := text_fault(name):
            faults.append(f"{file}: class {i}: the name {name!r} {fault}; change it")
        elif not _is_color(color):
            faults.append(f"{file}: class {i}: field color must be 3 numbers 0..255")
        else:
            table.append(ClassInfo(name, (color[0], color[1], color[2])))
    names = [info.name for info in table]
    faults += [
        f"{file}: class name {name!r} is used twice; names must differ"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    return tuple(table) if len(faults) == num_faults else ()


def class_color(index: int) -> tuple[int, int, int]:
    """Returns black for the background, then hues that are a golden angle apart."""
    if index == 0:
        return (0, 0, 0)
    red, green, blue = colorsys.hsv_to_rgb(0.618034 * index % 1, 0.75, 0.95)
    return (round(255 * red), round(255 * green), round(255 * blue))


def _is_color(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )
