"""The operators that CPUs need in another form, and the one place that chooses it.

Each has the plain form, which GPUs run fastest, and one of `nn._cpu`. Programs hold
both until they are lowered; `lax.platform_dependent` then keeps the one of the platform
that they are lowered for. A program that is traced on one machine and exported for
others therefore has the right form on each.

The choice stands inside the differentiation rules, so that JAX never differentiates it:
either form of a gradient starts from the operator's inputs, and no other residuals.
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
    """How a kernel moves over a map.

    Attributes:
        pads: rows added before and after, columns added before and after.
        stride: in both directions.
        dilation: pixels between taps, in both directions.
    """

    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    stride: int = 1
    dilation: int = 1


Operator = Callable[..., Array]
Gradient = Callable[..., tuple[Array, Array]]


def _with_cpu_forms(
    *, gradient: Gradient, forward: Operator | None = None
) -> Callable[[Operator], Operator]:
    """Gives `plain(x, kernel, *static)` another gradient, and form if any, on CPUs.

    Args:
        gradient: of x, kernel, the static arguments and the result's gradient.
        forward: of the arguments of `plain`.
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
    """x [B, ..., C] times kernel [C, D]: [B, ..., D]."""
    return x @ kernel


@_with_cpu_forms(
    gradient=lambda x, k, w, y: gradients.of_convolve(
        x, k, w.pads, w.stride, w.dilation, y
    )
)
def convolve(x: Array, kernel: Array, window: Window) -> Array:
    """x [B, H, W, C] with kernel [h, w, C, D] of its dtype: [B, H', W', D]."""
    return _convolve(x, kernel, window)


@_with_cpu_forms(
    gradient=lambda x, k, w, y: depthwise.gradient(x, k, w.pads, w.stride, y),
    forward=lambda x, k, w: depthwise.shifted(x, k, w.pads, w.stride),
)
def depthwise_3x3(x: Array, kernel: Array, window: Window) -> Array:
    """x [B, H, W, C] with kernel [3, 3, 1, C], undilated: [B, H', W', C]."""
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
    """Means [C] over all positions of `terms` of maps [..., W, C], float32 at least.

    `terms` takes as many maps and gives maps of their shape. It is not differentiable.
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
