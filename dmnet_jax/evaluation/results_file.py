"""Reads and validates `results.json`.

The content is checked against what `results.write_results` writes, so that callers can
rely on the fields. Does not import JAX.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.io.files import check_not_special
from data_pipelines.io.names import printable, text_fault


class ResultsError(ValueError):
    """Raised when a results file is damaged or was edited; names file and field.

    Attributes:
        reason: the error without the file name.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Each:
    """Schema of a JSON object with arbitrary names and values of one kind.

    Attributes:
        kind: kind of every value.
        further: additional kinds of required fields, by name.
    """

    kind: Any
    further: Any = None


class Optional(str):
    """The name of a field that may be missing in older results."""


SCORE, NUMBER, TEXT, ANY = "a score or null", "a number", "text", "anything"
_MOST = 1e300
_INTERVAL = (SCORE, SCORE)


def read_results(path: Path, *, to_average: bool = False) -> dict[str, Any]:
    """Reads a `results.json`.

    Args:
        path: path of the file.
        to_average: whether to require the fields that `cross_validation.average` needs.
            Otherwise, the fields that a report shows are required, of which older
            results may lack some.

    Raises:
        ResultsError: the file cannot be read, or a field is missing or invalid.
    """
    results = read_json(path)
    try:
        check(results, {"classes": [TEXT]}, "")
        names = results["classes"]
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError("classes must be two or more distinct names")
        check(results, (_averaged if to_average else _shown)(names), "")
    except (ValueError, LookupError, TypeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ResultsError(
            path, f"damaged or edited ({printable(what)}); evaluate again"
        ) from error
    return results


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ResultsError: the file cannot be read or is not valid JSON.
    """
    try:
        check_not_special(path)
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ResultsError(path, f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        what = printable(" ".join(str(error).split()))
        raise ResultsError(path, f"damaged ({what}); evaluate again") from error


def check(value: Any, kind: Any, path: str) -> None:
    """Checks JSON data against a schema.

    Args:
        value: the data.
        kind: SCORE, NUMBER, TEXT or ANY; a list with the kind of all elements; a tuple
            with the kind of each element; `Each`; or a dict of kinds by field, which
            allows further fields.
        path: path of the value, for error messages.

    Raises:
        ValueError: the data does not match; names the field.
    """
    here = path or "it"
    if isinstance(kind, list):
        _need(isinstance(value, list), here, "a list")
        for i, part in enumerate(value):
            check(part, kind[0], f"{path}.{i}")
    elif isinstance(kind, tuple):
        fits = isinstance(value, list) and len(value) == len(kind)
        _need(fits, here, f"a list of {len(kind)}")
        for i, part in enumerate(value):
            check(part, kind[i], f"{path}.{i}")
    elif isinstance(kind, Each):
        _need(isinstance(value, dict), here, "a group of fields")
        for name, part in value.items():
            if fault := text_fault(name):
                raise ValueError(f"{here}: a name {fault}")
            check(part, kind.kind, f"{path}.{name}")
        if kind.further is not None:
            check(value, kind.further, path)
    elif isinstance(kind, dict):
        _need(isinstance(value, dict), here, "a group of fields")
        for name, part in kind.items():
            if name in value or not isinstance(name, Optional):
                inner = f"{path}.{name}" if path else str(name)
                _need(name in value, inner, "there")
                check(value[name], part, inner)
    elif kind is ANY:
        pass
    elif kind is TEXT:
        _need(isinstance(value, str) and not text_fault(value), here, TEXT)
    else:
        known = isinstance(value, int | float) and not isinstance(value, bool)
        known = known and (value != value or abs(value) <= _MOST)
        _need(known or (kind is SCORE and value is None), here, kind)


def _averaged(names: Sequence[str]) -> Mapping[Any, Any]:
    per_class = {name: SCORE for name in names[1:]}
    protocol = {
        "letter": TEXT,
        "meaning": TEXT,
        "iou": SCORE,
        "dice": SCORE,
        "iou_per_class": per_class,
        "dice_per_class": per_class,
    }
    return {
        "protocols": Each(protocol),
        "frames": NUMBER,
        "scoring": Each(ANY),
        "versions": Each(TEXT),
        "weights_sha256": TEXT,
        "split_sha256": ANY,
        "surface_distance": {"mean": SCORE, "tolerance_px": NUMBER},
        "flicker": {"share": SCORE},
        "about": {"config": {"data": {"fold": NUMBER}, "train": {"seed": NUMBER}}},
    }


def _shown(names: Sequence[str]) -> Mapping[Any, Any]:
    per_class = {name: SCORE for name in names[1:]}
    scores = {"iou": SCORE, "dice": SCORE}
    surface = {"mean": SCORE, "per_class": per_class}
    interval = {"iou": _INTERVAL, "dice": _INTERVAL}
    protocol = {
        **scores,
        Optional("letter"): TEXT,
        Optional("meaning"): TEXT,
        Optional("interval_95"): interval,
        "videos": Each(scores),
    }
    return {
        "protocols": Each(protocol, {"global": {"interval_95": interval}}),
        "admitted": SCORE,
        Optional("scoring"): Each(ANY),
        Optional("versions"): Each(TEXT),
        Optional("weights_sha256"): TEXT,
        Optional("split_sha256"): ANY,
        Optional("surface_distance"): {
            **surface,
            "tolerance_px": NUMBER,
            "videos": Each(surface),
        },
        Optional("flicker"): {"share": SCORE, "videos": Each(SCORE)},
        Optional("thresholds"): Each(SCORE),
        Optional("confusion"): [tuple(NUMBER for _ in names)],
        Optional("about"): {
            Optional("train_videos"): [TEXT],
            Optional("versions"): Each(TEXT),
            Optional("devices"): [TEXT],
        },
    }


def _need(ok: object, here: str, what: str) -> None:
    if not ok:
        raise ValueError(f"{here} must be {what}")
