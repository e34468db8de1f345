"""Functions whose arrays are checked against the shapes in their signatures."""

from collections.abc import Callable, Iterable
from types import ModuleType, SimpleNamespace

import jaxtyping
import pytest
from beartype import beartype


def checked(
    monkeypatch: pytest.MonkeyPatch,
    modules: Iterable[ModuleType],
    functions: Iterable[Callable],
) -> SimpleNamespace:
    """The functions by name, with arguments and results checked.

    The modules import jaxtyping for type checkers alone, so it is put into them here.
    """
    for module in modules:
        for name in ("Bool", "Float", "Float32", "Int", "Int32", "Integer"):
            monkeypatch.setattr(module, name, getattr(jaxtyping, name), raising=False)
    found = {
        function.__name__: jaxtyping.jaxtyped(function, typechecker=beartype)
        for function in functions
    }
    return SimpleNamespace(**found)
