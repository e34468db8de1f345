"""Flattens a function to one list of JAX primitives.

Constructs without an ONNX equivalent are resolved here: calls are inlined, short loops
are unrolled, `lax.platform_dependent` uses its default form, `lax.cond` computes both
branches and selects one, and constant expressions are evaluated.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

MAX_UNROLLED = 16

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Primitives that call a function, and the name of the parameter with its jaxpr."""

_SAME = ("copy", "copy_p", "optimization_barrier", "stop_gradient")


def flatten(
    fn: Callable[..., Sequence[Array]], shapes: Sequence[Any], names: Collection[str]
) -> ClosedJaxpr:
    """Traces `fn` to a jaxpr without nested jaxprs.

    Args:
        fn: function of arrays of these shapes that returns a sequence of arrays.
        shapes: `jax.ShapeDtypeStruct`s of the arguments.
        names: names of functions under `jax.jit` whose calls are kept.
    """
    traced = jax.make_jaxpr(fn)(*shapes)

    def run(*arguments: Any) -> list[Any]:
        return _run(traced.jaxpr, traced.consts, arguments, names)

    return jax.make_jaxpr(run)(*shapes)


def _run(
    jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], names: Any
) -> list[Any]:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(x: Any) -> Any:
        return x.val if isinstance(x, Literal) else values[x]

    for equation in jaxpr.eqns:
        operands = [read(x) for x in equation.invars]
        if any(isinstance(x, Tracer) for x in operands):
            results = _apply(equation, operands, names)
        else:
            with jax.ensure_compile_time_eval():
                results = _apply(equation, operands, names)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _apply(equation: Any, operands: list[Any], names: Any) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS and params.get("name") not in names:
        return _call(params[_CALLS[name]], operands, names)
    if name in _SAME:
        return operands
    if name == "platform_index":
        return [jnp.int32(len(params["platforms"]) - 1)]  # the last is the default
    if name == "cond":
        return _cond(params["branches"], *operands, names=names)
    if name == "scan" and params["length"] <= MAX_UNROLLED:
        return _unrolled(params, operands, names)
    results = equation.primitive.bind(*operands, **params)
    return results if equation.primitive.multiple_results else [results]


def _call(function: Any, operands: Sequence[Any], names: Any) -> list[Any]:
    if isinstance(function, Jaxpr):
        return _run(function, [], operands, names)
    return _run(function.jaxpr, function.consts, operands, names)


def _cond(branches: Any, index: Any, *operands: Any, names: Any) -> Sequence[Any]:
    if not isinstance(index, Tracer):
        place = min(max(int(index), 0), len(branches) - 1)
        return _call(branches[place], operands, names)
    if len(branches) != 2:
        raise ValueError(
            f"lax.switch of {len(branches)} branches cannot be written as ONNX; "
            "select with jnp.where, or export with --format jax"
        )
    no, yes = (_call(branch, operands, names) for branch in branches)
    condition = lax.ne(index, jnp.zeros_like(index))
    return [lax.select_n(condition, x, y) for x, y in zip(no, yes, strict=True)]


def _unrolled(params: Any, operands: list[Any], names: Any) -> list[Any]:
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, carry = operands[:num_consts], operands[num_consts:][:num_carry]
    rows = operands[num_consts + num_carry :]
    steps = range(params["length"])
    outputs: dict[int, list[Any]] = {}
    for step in reversed(steps) if params["reverse"] else steps:
        slices = [lax.index_in_dim(x, step, keepdims=False) for x in rows]
        results = _call(params["jaxpr"], [*consts, *carry, *slices], names)
        carry, outputs[step] = results[:num_carry], results[num_carry:]
    stacked = [
        lax.concatenate([lax.expand_dims(outputs[step][i], (0,)) for step in steps], 0)
        for i in range(len(params["jaxpr"].out_avals) - num_carry)
    ]
    return [*carry, *stacked]
