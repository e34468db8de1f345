"""Attention over what a network predicted in earlier frames."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.nn.attention import KeyValue
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.prediction_state import GAIN_SCALE, safe_log
from dmnet_jax.nn.resizing import mean_2x2, upsample_2x

ZEROS = nn.initializers.zeros

# Frequencies of the positional term, in half waves per side: they tell halves of a
# frame apart, down to eighths.
FREQUENCIES = (1, 2, 4, 8)
# Share of pixels whose class changes for any reason. It bounds how strongly the prior
# contradicts a frame.
CHANGE = 0.02


class MaskMemory(nn.Module):
    """Corrects a frame's logits with the predictions for admitted frames.

    A stored frame has keys from its features, and values from its own prediction: the
    class probabilities, both at 1/16 of the frame size. Each position of a new frame
    attends to all positions of the frames that are read and of the frame itself, or to
    none of them (a learned null slot). What it reads is the prior of its classes, as in
    a Bayes filter: logits + weight * log(prior). The weight is initialized to zero, so
    an untrained memory does not change the network's output.

    Attributes:
        key_channels: channels that queries and keys are compared by.
        dtype: dtype of keys and values.
    """

    key_channels: int = 32
    dtype: Any = jnp.float32

    def setup(self) -> None:
        def dense(channels: int, **options: Any) -> Dense1x1:
            return Dense1x1(channels, dtype=self.dtype, **options)

        self.query, self.key = dense(self.key_channels), dense(self.key_channels)
        self.query_place = dense(self.key_channels)
        self.key_place = dense(self.key_channels)
        self.evidence = dense(1, kernel_init=ZEROS)
        self.null = self.param("null", ZEROS, ())
        self.weight = self.param("weight", ZEROS, ())

    @nn.nowrap
    def shapes(self, size: tuple[int, int], classes: int) -> KeyValue:
        """Returns the shapes of one stored frame.

        Args:
            size: (H, W) of the frames.
            classes: number of classes.
        """

        def map_of(channels: int) -> Any:
            shape = (size[0] // 16, size[1] // 16, channels)
            return jax.ShapeDtypeStruct(shape, self.dtype)

        return KeyValue(map_of(self.key_channels + 1), map_of(classes))

    def store(self, fine: Array, logits: Array) -> KeyValue:
        """Computes what is stored of a frame.

        Args:
            fine: [B, h/2, w/2, width], the decoder's map at 1/8 of the frame size.
            logits: float32 [B, h, w, C], logits of this frame alone.

        Returns:
            Keys [B, h/4, w/4, key_channels + 1] and class probabilities
            [B, h/4, w/4, C]. The last channel of the keys says how much a position
            tells, whatever the query.
        """
        probabilities = jax.nn.softmax(logits)
        entropy = -(probabilities * safe_log(probabilities)).sum(-1, keepdims=True)
        seen = mean_2x2(mean_2x2(jnp.concatenate([probabilities, entropy], -1)))
        seen = seen.astype(self.dtype)
        coarse = mean_2x2(fine)
        key = self.key(coarse) + self.key_place(_places(coarse))
        evidence = self.evidence(jnp.concatenate([coarse, seen], -1))
        return KeyValue(jnp.concatenate([key, evidence], -1), seen[..., :-1])

    def __call__(
        self, readout: mem.Readout, stored: KeyValue, fine: Array, logits: Array
    ) -> Array:
        """Returns the logits, corrected by what was read.

        Args:
            readout: M stored frames per video, leaves [B, M, ...].
            stored: result of `store` for this frame, leaves [B, ...].
            fine: [B, h/2, w/2, width], as in `store`.
            logits: float32 [B, h, w, C], logits of this frame alone.
        """
        coarse = mean_2x2(fine)
        query = self.query(coarse) + self.query_place(_places(coarse))
        # The evidence of a stored position is added to its score as it is.
        scale = jnp.full((*query.shape[:-1], 1), np.sqrt(self.key_channels + 1))
        query = jnp.concatenate([query, scale.astype(query.dtype)], -1)
        null = jnp.broadcast_to(GAIN_SCALE * self.null, query.shape[:-1])
        items = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new[:, None]], axis=1),
            *(readout.items, stored),
        )
        mask = jnp.pad(readout.mask, ((0, 0), (0, 1)), constant_values=True)
        read = jax.vmap(mem.attend)(query, items.key, items.value, mask, null)
        prior = upsample_2x(upsample_2x(read.astype(jnp.float32)))
        # The share of the null slot speaks for all classes alike.
        classes = prior.shape[-1]
        prior += (1 - prior.sum(-1, keepdims=True)) / classes
        prior = (1 - CHANGE) * prior + CHANGE / classes
        return logits + jnp.tanh(GAIN_SCALE * self.weight) * jnp.log(classes * prior)


def _places(x: Array) -> Array:
    """Returns the positional term of a map [B, h, w, C]: [1, h, w, 16], its dtype."""
    waves = []
    for axis, n in enumerate(x.shape[1:3]):
        place = np.expand_dims((np.arange(n) + 0.5) / n, 1 - axis)
        for frequency in FREQUENCIES:
            angle = np.broadcast_to(np.pi * frequency * place, x.shape[1:3])
            waves += [np.sin(angle), np.cos(angle)]
    return jnp.asarray(np.stack(waves, -1)[None], x.dtype)
