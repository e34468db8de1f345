"""Strict conversion of plain JSON data to typed dataclasses; errors name the field."""

import dataclasses
import difflib
import math
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


class ConfigError(ValueError):
    """An invalid configuration; one line names the field and its allowed values."""


def from_plain(kind: Any, value: Any, path: str) -> Any:
    """Converts dicts, sequences and scalars to the type of an annotation.

    An int is accepted as a float; nothing else is converted.

    Args:
        kind: a dataclass, tuple, Literal, Optional, bool, int, float or str.
        value: data from JSON or `dataclasses.asdict`.
        path: path of the field, for error messages.

    Raises:
        ConfigError: a field is unknown or missing, or a value has the wrong type.
    """
    name = path or "the configuration"
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, path)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value in arguments and type(value) is type(arguments[0]):
            return value
        choices = ", ".join(map(repr, arguments))
        raise ConfigError(f"{name} is {value!r}; it must be one of {choices}")
    if origin in (Union, types.UnionType):
        inner = next(part for part in arguments if part is not types.NoneType)
        return None if value is None else from_plain(inner, value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} is {value!r}; it must be a list")
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(value) != len(arguments):
            raise ConfigError(
                f"{name} is {value!r}; it must have {len(arguments)} items"
            )
        parts = zip(arguments, value, strict=True)
        return tuple(from_plain(k, v, f"{name}.{i}") for i, (k, v) in enumerate(parts))
    if kind is float and type(value) is int and abs(value) < 1 << 1000:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name} is {value!r}; it must be {_TYPE_NAMES[kind]}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}; it must be a finite number")
    return value


def _dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        name = path or "the configuration"
        raise ConfigError(f"{name} is {value!r}; it must be a group of fields")
    hints = get_type_hints(kind)
    prefix = f"{path}." if path else ""
    for name in value:
        if name not in hints:
            raise ConfigError(
                f"{prefix}{name}: no such field{_suggestion(name, [*hints])}"
            )
    for item in dataclasses.fields(kind):
        has_default = (
            item.default is not dataclasses.MISSING
            or item.default_factory is not dataclasses.MISSING
        )
        if item.name not in value and not has_default:
            raise ConfigError(f"{prefix}{item.name} is missing")
    return kind(**{n: from_plain(hints[n], v, prefix + n) for n, v in value.items()})


def _suggestion(name: str, known: list[str]) -> str:
    """Returns "; did you mean ...?" for an unknown name, or an empty string."""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
