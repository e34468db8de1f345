"""Batch normalization with hand-written statistics and gradient.

Same function and variables as `flax.linen.BatchNorm`. Differentiating Flax's layer
takes six reductions over positions; this one takes two forward and two backward.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from dmnet_jax.nn.operators import position_means


class BatchNorm(nn.Module):
    """Batch normalization of x [B, H, W, C] over all axes but the last.

    Variables are "scale" and "bias" in "params", "mean" and "var" in "batch_stats", all
    float32 [C]. Statistics are computed in float32 or higher, whatever `dtype` is.

    Attributes:
        use_running_average: use the stored statistics and do not update them.
        momentum: decay rate of the stored statistics.
        epsilon: added to the variance.
        axis_name: device axis over which statistics are averaged.
        dtype: dtype of the result.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        var = self.variable("batch_stats", "var", jnp.ones, features)
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        if self.use_running_average:
            y = _affine(x, mean.value, var.value, scale, bias, self.epsilon)
            return y.astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        result: Any = _normalize(x, scale, bias, self.epsilon, axis_name)
        y, now_mean, now_var = result
        if not self.is_initializing():
            keep = self.momentum
            mean.value = keep * mean.value + (1 - keep) * now_mean
            var.value = keep * var.value + (1 - keep) * now_var
        return y.astype(self.dtype)


def _affine(
    x: Array, mean: Array, var: Array, scale: Array, bias: Array, epsilon: float
) -> Array:
    return (x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalize(
    x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
) -> tuple[Array, Array, Array]:
    """Returns the result, mean and variance. The latter two carry no gradient."""
    means = position_means(lambda x: (x, x * x), x)
    mean, square = _over_devices(means, axis_name)
    var = jnp.maximum(square - mean * mean, 0)
    return _affine(x, mean, var, scale, bias, epsilon), mean, var


def _normalize_forward(
    x: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    result: Any = _normalize(x, scale, bias, epsilon, axis_name)
    _, mean, var = result
    return result, (x, scale, mean, lax.rsqrt(var + epsilon))


def _normalize_backward(
    epsilon: float,
    axis_name: str | None,
    residuals: tuple[Array, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array]:
    """Computes dL/dx = (g - <g> - z <g z>) scale / std with z = (x - mean) / std.

    <> is the mean over positions and devices. The gradients of scale and bias are sums
    over this device only.
    """
    x, scale, mean, inverse = residuals
    # Keeps XLA from fusing the producer of the gradient into each sum, repeating it.
    gradient = lax.optimization_barrier(gradients[0])
    here = position_means(lambda g, x: (g, g * (x - mean)), gradient, x)
    count = x.size // x.shape[-1]
    to_bias, to_scale = here[0] * count, here[1] * inverse * count
    shift, slope = _over_devices(here, axis_name)
    slope = slope * inverse * inverse
    to_x = (gradient - shift - (x - mean) * slope) * (scale * inverse)
    return to_x.astype(x.dtype), to_scale, to_bias


_normalize.defvjp(_normalize_forward, _normalize_backward)


def _over_devices(values: Any, axis_name: str | None) -> Any:
    return values if axis_name is None else lax.pmean(values, axis_name)
