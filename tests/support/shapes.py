"""Checks arguments and results of functions against the shapes in their signatures."""

from collections.abc import Callable, Iterable
from types import ModuleType, SimpleNamespace

import jaxtyping
import pytest
from beartype import beartype


def typechecked(
    monkeypatch: pytest.MonkeyPatch,
    modules: Iterable[ModuleType],
    functions: Iterable[Callable],
) -> SimpleNamespace:
    """Returns the functions by name, with checks of arguments and results.

    The modules import jaxtyping only for type checkers, so it is patched in here.
    """
    for module in modules:
        for name in ("Bool", "Float", "Float32", "Int", "Int32", "Integer"):
            monkeypatch.setattr(module, name, getattr(jaxtyping, name), raising=False)
    wrapped = {
        function.__name__: jaxtyping.jaxtyped(function, typechecker=beartype)
        for function in functions
    }
    return SimpleNamespace(**wrapped)
