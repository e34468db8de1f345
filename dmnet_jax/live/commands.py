"""The commands that the page may send."""

import math
from collections.abc import Callable
from typing import Any

from dmnet_jax.live.degrade import Choice


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_FIELDS: dict[frozenset[str], Callable[[Any], bool]] = {
    frozenset({"paused"}): _is_switch,
    frozenset({"compare"}): _is_switch,
    frozenset({"seek"}): _is_number,
    frozenset({"source"}): _is_text,
    frozenset({"forget"}): lambda value: value in ("reset-local", "reset-all"),
    frozenset({"min_confidence", "max_similarity"}): _is_number,
}


def check(command: dict[str, Any]) -> None:
    """Checks that a command of the page is one of these.

    {"paused": bool}, {"compare": bool}, {"seek": seconds}, {"source": one of
    `Engine.sources`}, {"forget": "reset-local" | "reset-all"}, {"min_confidence":
    float, "max_similarity": float}, {"degrade": a kind of `corruption.KINDS` or "none",
    "severity": 1 to 5}.

    Raises:
        ValueError: it is none of these.
    """
    accepts = _FIELDS.get(frozenset(command))
    valid = accepts is not None and all(map(accepts, command.values()))
    if not valid and not Choice.of(command):
        raise ValueError("unknown command")
