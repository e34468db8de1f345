"""Convolutional recurrent cells over a short window of feature maps.

A cell has two parts: `project` computes the per-frame part, once per frame, and
`__call__` unrolls the cell over a window of such projections. Every call starts from a
zero state (paper section 2.2), so nothing older than the window can persist. The first
step omits the terms that are zero for that state.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.layers import KERNEL_INIT, Dense1x1, Depthwise3x3
from dmnet_jax.nn.operators import Window, convolve, matmul


class JoinedConv(nn.Module):
    """A convolution of concatenated input and hidden state, applied in two halves.

    The sum of both halves equals the convolution of the concatenation, with kernel
    [size, size, inputs + hidden, features] and bias [features]. The bias is added in
    the input half.

    Attributes:
        inputs: channels of the input.
        hidden: channels of the hidden state.
        features: output channels.
        size: kernel size, 1 or 3.
    """

    inputs: int
    hidden: int
    features: int
    size: int = 1
    dtype: Any = jnp.float32

    def setup(self) -> None:
        shape = (self.size, self.size, self.inputs + self.hidden, self.features)
        self.kernel = self.param("kernel", KERNEL_INIT, shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def of_input(self, x: Array) -> Array:
        """Applies the input half: [B, h, w, inputs] -> [B, h, w, features]."""
        return self._convolve(x, slice(None, self.inputs)) + self.bias.astype(
            self.dtype
        )

    def of_hidden(self, x: Array) -> Array:
        """Applies the hidden half: [B, h, w, hidden] -> [B, h, w, features]."""
        return self._convolve(x, slice(self.inputs, None))

    def _convolve(self, x: Array, channels: slice) -> Array:
        kernel = self.kernel[:, :, channels].astype(self.dtype)
        x = x.astype(self.dtype)
        if self.size == 1:
            return matmul(x, kernel[0, 0])
        return convolve(x, kernel, Window(((1, 1), (1, 1))))


class BottleneckLSTM(nn.Module):
    """Bottleneck LSTM (Liu and Zhu, CVPR 2018).

    The input passes a depthwise convolution, is concatenated with the hidden state and
    reduced to `features` channels by a 1x1 bottleneck. The gates are 1x1 convolutions
    of its depthwise-filtered output.

    Attributes:
        features: channels of input, projection and hidden state.
    """

    features: int = 256
    dtype: Any = jnp.float32

    def setup(self) -> None:
        features, dtype = self.features, self.dtype
        self.input_filter = Depthwise3x3(use_bias=True, dtype=dtype)
        self.bottleneck = JoinedConv(features, features, features, dtype=dtype)
        self.gate_filter = Depthwise3x3(dtype=dtype)
        self.gate_i = Dense1x1(features, dtype=dtype)
        self.gate_f = Dense1x1(features, dtype=dtype)
        self.gate_c = Dense1x1(features, dtype=dtype)
        self.gate_o = Dense1x1(features, dtype=dtype)

    def project(self, x: Array) -> Array:
        """Input half of the bottleneck: [N, h, w, features] -> same shape."""
        return self.bottleneck.of_input(self.input_filter(x))

    def __call__(self, window: Array) -> Array:
        """Projections [B, T, h, w, features] -> last state [B, h, w, features]."""
        hidden = cell = None
        for joined in jnp.moveaxis(window, 1, 0):
            if hidden is not None:
                joined += self.bottleneck.of_hidden(hidden)
            gates = self.gate_filter(joined)
            added = jax.nn.sigmoid(self.gate_i(gates)) * jnp.tanh(self.gate_c(gates))
            if cell is not None:
                added += jax.nn.sigmoid(self.gate_f(gates)) * cell
            cell = added
            hidden = jax.nn.sigmoid(self.gate_o(gates)) * jnp.tanh(cell)
        assert hidden is not None  # T is at least 1
        return hidden


class ConvLSTM(nn.Module):
    """Standard convolutional LSTM (Shi et al., NeurIPS 2015).

    One 3x3 convolution of input and hidden state gives the four gates in the order
    i, f, o, g.

    Attributes:
        features: channels of input and hidden state; projections have four times as
            many.
    """

    features: int = 256
    dtype: Any = jnp.float32

    def setup(self) -> None:
        features = self.features
        self.gates = JoinedConv(features, features, 4 * features, 3, dtype=self.dtype)

    def project(self, x: Array) -> Array:
        """Input half of the gates: [N, h, w, features] -> [N, h, w, 4 features]."""
        return self.gates.of_input(x)

    def __call__(self, window: Array) -> Array:
        """Projections [B, T, h, w, 4 features] -> last state [B, h, w, features]."""
        hidden = cell = None
        for gates in jnp.moveaxis(window, 1, 0):
            if hidden is not None:
                gates += self.gates.of_hidden(hidden)
            i, f, o, g = jnp.split(gates, 4, axis=-1)
            added = jax.nn.sigmoid(i) * jnp.tanh(g)
            if cell is not None:
                added += jax.nn.sigmoid(f) * cell
            cell = added
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        assert hidden is not None  # T is at least 1
        return hidden
