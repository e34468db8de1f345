"""Convolutional recurrent cells over a short window of feature maps.

Both cells start from a zero state and are rolled over the window anew for every
frame (paper section 2.2), so that nothing older than the window can persist.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.layers import Conv3x3, Dense1x1, Depthwise3x3


class BottleneckLSTM(nn.Module):
    """Bottleneck LSTM (Liu and Zhu, CVPR 2018): window -> last hidden state.

    `__call__(window [B, T, h, w, C]) -> [B, h, w, features]`. The input is filtered
    depthwise, joined with the hidden state and brought down to `features` channels
    by a 1x1 bottleneck; the gates are 1x1 convolutions of its depthwise-filtered
    output.
    """

    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, window: Array) -> Array:
        batch, length, height, width, _ = window.shape
        dense = {
            name: Dense1x1(self.features, dtype=self.dtype, name=name)
            for name in ("gate_i", "gate_f", "gate_c", "gate_o")
        }
        bottleneck = Dense1x1(
            self.features, use_bias=True, dtype=self.dtype, name="bottleneck"
        )
        gate_filter = Depthwise3x3(dtype=self.dtype, name="gate_filter")
        inputs = Depthwise3x3(use_bias=True, dtype=self.dtype, name="input_filter")(
            window.reshape(batch * length, height, width, -1)
        ).reshape(batch, length, height, width, -1)

        state = jnp.zeros((batch, height, width, self.features), self.dtype)
        hidden, cell = state, state
        for t in range(length):
            joined = jnp.concatenate([inputs[:, t], hidden], -1)
            gates = gate_filter(bottleneck(joined))
            cell = jax.nn.sigmoid(dense["gate_f"](gates)) * cell
            cell += jax.nn.sigmoid(dense["gate_i"](gates)) * jnp.tanh(
                dense["gate_c"](gates)
            )
            hidden = jax.nn.sigmoid(dense["gate_o"](gates)) * jnp.tanh(cell)
        return hidden


class ConvLSTM(nn.Module):
    """Standard convolutional LSTM (Shi et al., NeurIPS 2015): window -> last state.

    `__call__(window [B, T, h, w, C]) -> [B, h, w, features]`; one 3x3 convolution
    of input and hidden state gives the four gates in the order i, f, o, g.
    """

    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, window: Array) -> Array:
        batch, length, height, width, _ = window.shape
        gates = Conv3x3(
            4 * self.features, use_bias=True, dtype=self.dtype, name="gates"
        )
        state = jnp.zeros((batch, height, width, self.features), self.dtype)
        hidden, cell = state, state
        for t in range(length):
            joined = jnp.concatenate([window[:, t], hidden], -1)
            i, f, o, g = jnp.split(gates(joined), 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return hidden
