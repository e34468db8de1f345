"""Convolutional recurrent cells over a short window of feature maps.

A cell is used in two parts: `project`, what it makes of one frame alone, computed once
a frame; and the call, which unrolls it over a window of such projections. It starts
from a zero state for every frame anew (paper section 2.2), so that nothing older than
the window can persist, and its first step leaves out what that state silences.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.layers import KERNEL_INIT, Dense1x1, Depthwise3x3
from dmnet_jax.nn.operators import Window, convolve, matmul


class JoinedConv(nn.Module):
    """A convolution of input and hidden state side by side, each half on its own.

    The sum of both halves is the convolution of their concatenation, whose parameters
    it has: kernel [size, size, inputs + hidden, features] and bias [features]. The bias
    goes with the input.

    Attributes:
        inputs: channels of the input.
        hidden: channels of the hidden state.
        features: outputs.
        size: 1 or 3, a side of the kernel.
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
        """[B, h, w, inputs] -> [B, h, w, features]."""
        return self._convolve(x, slice(None, self.inputs)) + self.bias.astype(
            self.dtype
        )

    def of_hidden(self, x: Array) -> Array:
        """[B, h, w, hidden] -> [B, h, w, features]."""
        return self._convolve(x, slice(self.inputs, None))

    def _convolve(self, x: Array, channels: slice) -> Array:
        kernel = self.kernel[:, :, channels].astype(self.dtype)
        x = x.astype(self.dtype)
        if self.size == 1:
            return matmul(x, kernel[0, 0])
        return convolve(x, kernel, Window(((1, 1), (1, 1))))


class BottleneckLSTM(nn.Module):
    """Bottleneck LSTM (Liu and Zhu, CVPR 2018).

    The input is filtered depthwise, joined with the hidden state and brought down to
    `features` channels by a 1x1 bottleneck; the gates are 1x1 convolutions of its
    depthwise-filtered output.

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
        """The bottleneck of frames alone: [N, h, w, features] -> the same shape."""
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
        features: channels of input and hidden state; a projection has four times them.
    """

    features: int = 256
    dtype: Any = jnp.float32

    def setup(self) -> None:
        features = self.features
        self.gates = JoinedConv(features, features, 4 * features, 3, dtype=self.dtype)

    def project(self, x: Array) -> Array:
        """The gates of frames alone: [N, h, w, features] -> [N, h, w, 4 features]."""
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
