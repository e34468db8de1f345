"""Operators with separate CPU implementations, selected at lowering time.

Each operator has a plain form, which is fastest on GPUs, and a CPU form in `nn._cpu`. A
traced program holds both; `lax.platform_dependent` keeps the one for the platform that
the program is lowered for. A program traced on one machine and exported for several
platforms therefore has the right form on each.

The selection happens inside the custom differentiation rules, so JAX never
differentiates it. Both forms of a gradient use the same residuals: the operator's
inputs.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from dmnet_jax.nn._cpu import depthwise, gradients, sums

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class Window(NamedTuple):
    """Padding, stride and dilation of a convolution.

    Attributes:
        pads: (rows before, rows after), (columns before, columns after).
        stride: stride in both directions.
        dilation: dilation of the kernel in both directions.
    """

    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    stride: int = 1
    dilation: int = 1


Operator = Callable[..., Array]
Gradient = Callable[..., tuple[Array, Array]]


def _with_cpu_forms(
    *, gradient: Gradient, forward: Operator | None = None
) -> Callable[[Operator], Operator]:
    """Decorates `plain(x, kernel, *static)` with separate CPU implementations.

    Args:
        gradient: CPU gradient, called as gradient(x, kernel, *static, cotangent).
        forward: CPU forward function with the arguments of `plain`. None: `plain`.
    """

    def decorate(plain: Operator) -> Operator:
        parameters = len(inspect.signature(plain).parameters)

        @functools.partial(jax.custom_vjp, nondiff_argnums=range(2, parameters))
        @functools.wraps(plain)
        def operator(x: Array, kernel: Array, *static: Any) -> Array:
            def with_static(form: Operator) -> Operator:
                return lambda x, kernel: form(x, kernel, *static)

            if forward is None:
                return plain(x, kernel, *static)
            return lax.platform_dependent(
                x, kernel, cpu=with_static(forward), default=with_static(plain)
            )

        def keep(x: Array, kernel: Array, *static: Any) -> tuple[Array, Any]:
            return operator(x, kernel, *static), (x, kernel)

        def pull(*arguments: Any) -> tuple[Array, Array]:
            *static, (x, kernel), cotangent = arguments

            def of_plain(x: Array, kernel: Array, cotangent: Array) -> Any:
                _, pull = jax.vjp(lambda x, k: plain(x, k, *static), x, kernel)
                return pull(cotangent)

            return lax.platform_dependent(
                *(x, kernel, cotangent),
                cpu=lambda x, kernel, y: gradient(x, kernel, *static, y),
                default=of_plain,
            )

        operator.defvjp(keep, pull)
        return cast(Operator, operator)

    return decorate


@_with_cpu_forms(gradient=gradients.of_matmul)
def matmul(x: Array, kernel: Array) -> Array:
    """Multiplies x [B, ..., C] with kernel [C, D]: [B, ..., D]."""
    return x @ kernel


@_with_cpu_forms(
    gradient=lambda x, k, w, y: gradients.of_convolve(
        x, k, w.pads, w.stride, w.dilation, y
    )
)
def convolve(x: Array, kernel: Array, window: Window) -> Array:
    """Convolves x [B, H, W, C] with kernel [h, w, C, D] of the same dtype.

    Returns:
        [B, H', W', D].
    """
    return _convolve(x, kernel, window)


@_with_cpu_forms(
    gradient=lambda x, k, w, y: depthwise.gradient(x, k, w.pads, w.stride, y),
    forward=lambda x, k, w: depthwise.shifted(x, k, w.pads, w.stride),
)
def depthwise_3x3(x: Array, kernel: Array, window: Window) -> Array:
    """Convolves x [B, H, W, C] depthwise with kernel [3, 3, 1, C]: [B, H', W', C].

    `window.dilation` must be 1.
    """
    return _convolve(x, kernel, window, groups=x.shape[-1])


def _convolve(x: Array, kernel: Array, window: Window, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (window.stride, window.stride),
        window.pads,
        rhs_dilation=(window.dilation, window.dilation),
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


def position_means(
    terms: Callable[..., tuple[Array, ...]], *maps: Array
) -> tuple[Array, ...]:
    """Returns means [C] of `terms(*maps)` over all positions, in float32 or higher.

    This function is not differentiable.

    Args:
        terms: function of the maps to a tuple of maps of the same shape.
        *maps: [..., W, C].
    """
    dtype = jnp.promote_types(maps[0].dtype, jnp.float32)

    def exact(*maps: Array) -> tuple[Array, ...]:
        return terms(*(x.astype(dtype) for x in maps))

    def plain(*maps: Array) -> tuple[Array, ...]:
        return tuple(x.mean((0, 1)) for x in exact(*maps))

    maps = tuple(x.reshape(-1, *x.shape[-2:]) for x in maps)
    if maps[0].size < sums.SMALL:
        return plain(*maps)
    return lax.platform_dependent(
        *maps, cpu=functools.partial(sums.position_means, exact), default=plain
    )
