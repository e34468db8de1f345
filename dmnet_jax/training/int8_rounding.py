"""Quantization-aware training: weights and activations are rounded to 8 bits.

An int8 export (`export.quantization`) rounds the weights and the inputs of
convolutions. A network that was trained with the same rounding loses less by it.
Gradients pass through the rounding unchanged (the straight-through estimator of Bengio
et al., 2013; Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018). Values stay float32: training is not
faster.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from dmnet_jax.nn.convolution import Conv
from dmnet_jax.nn.layers import Conv3x3, Dense1x1, Depthwise3x3

_LAYERS = Conv, Conv3x3, Dense1x1, Depthwise3x3


def round_kernels(params: Any) -> Any:
    """Rounds all kernels to 255 levels per output channel, symmetric about 0.

    The scale of a channel does not matter, so batch norms may be folded later.

    Args:
        params: parameters of a network; arrays named "kernel" are [..., channels].
    """

    def rounded(path: Any, x: Array) -> Array:
        if path[-1].key != "kernel":
            return x
        largest = jnp.max(jnp.abs(x), axis=tuple(range(x.ndim - 1)), keepdims=True)
        return _round(x, largest / 127)

    return jax.tree_util.tree_map_with_path(rounded, params)


def round_inputs() -> Any:
    """Returns a context in which the inputs of convolutions are rounded.

    An input [B, H, W, C] has one scale: 255 levels above 0 if nothing is negative,
    otherwise 127 on either side.
    """
    return nn.intercept_methods(_with_rounded_input)


def _with_rounded_input(
    run: Callable[..., Any],
    inputs: tuple[Any, ...],
    keywords: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    if isinstance(context.module, _LAYERS) and context.method_name == "__call__":
        x, *rest = inputs
        levels = jnp.where(jnp.min(x) < 0, 127, 255).astype(x.dtype)
        return run(_round(x, jnp.max(jnp.abs(x)) / levels), *rest, **keywords)
    return run(*inputs, **keywords)


def _round(x: Array, step: Array) -> Array:
    """Rounds to multiples of `step`, which is not differentiated."""
    step = lax.stop_gradient(jnp.maximum(step, jnp.finfo(x.dtype).tiny))
    return x + lax.stop_gradient(jnp.round(x / step) * step - x)
