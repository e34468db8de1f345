"""Non-local attention over remembered feature maps (paper eq. 1)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from dmnet_jax.nn.layers import Conv3x3


@jax.jit
def softmax(logits: Array) -> Array:
    """Softmax over the last axis."""
    return jax.nn.softmax(logits)


class KeyValue(struct.PyTreeNode):
    """Keys and values of one frame.

    Attributes:
        key: [..., h, w, K], compared with queries.
        value: [..., h, w, V], read out.
    """

    key: Array
    value: Array


class KeyValueProjection(nn.Module):
    """Two 3x3 convolutions with bias: features [B, h, w, C] -> KeyValue."""

    key_channels: int = 64
    value_channels: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Array) -> KeyValue:
        def conv(channels: int, name: str) -> Conv3x3:
            return Conv3x3(channels, use_bias=True, dtype=self.dtype, name=name)

        return KeyValue(
            conv(self.key_channels, "key")(features),
            conv(self.value_channels, "value")(features),
        )


class NonLocal(nn.Module):
    """Non-local attention from the current frame to remembered frames.

    `__call__(query, memory, mask, train=)` takes query leaves [B, h, w, ...], memory
    leaves [B, M, h, w, ...] and mask bool [B, M] (False: the frame is not read). It
    returns [B, h, w, 2V]: the weighted sum of the memory's values, concatenated with
    the query's own value. The mask must be True for at least one frame per video.

    The affinity is exp(k . q) as in eq. 1, with the dot product divided by sqrt(K) as
    in the authors' release. The key projection can undo this constant, but without it
    the softmax saturates at initialization. Logits and softmax are float32. Dropout is
    applied to the normalized affinity.
    """

    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, query: KeyValue, memory: KeyValue, mask: Array, *, train: bool
    ) -> Array:
        batch, height, width, key_channels = query.key.shape
        value_channels = query.value.shape[-1]
        # [B, hw, K], [B, M hw, K], [B, M hw, V]
        q = query.key.reshape(batch, height * width, key_channels)
        k = memory.key.reshape(batch, -1, key_channels)
        v = memory.value.reshape(batch, -1, value_channels)
        # logits [B, hw, M hw]
        logits = jnp.einsum(
            "bqc,bmc->bqm", q, k, preferred_element_type=jnp.float32
        ) / jnp.sqrt(jnp.float32(key_channels))
        readable = jnp.repeat(mask, height * width, axis=1)[:, None]
        affinity = softmax(jnp.where(readable, logits, -jnp.inf))
        affinity = nn.Dropout(self.dropout, deterministic=not train)(affinity)
        readout = jnp.einsum("bqm,bmc->bqc", affinity.astype(self.dtype), v)
        readout = readout.reshape(batch, height, width, value_channels)
        return jnp.concatenate([readout, query.value], axis=-1)


class Attention(nn.Module):
    """Softmax attention over positions, without projections.

    `__call__(query [B, N, K], key [B, M, K], value [B, M, V], train=)` -> [B, N, V].
    The dot product is divided by sqrt(K); logits and softmax are float32. Dropout is
    applied to the normalized affinity.
    """

    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, query: Array, key: Array, value: Array, *, train: bool) -> Array:
        logits = jnp.einsum(
            "bqc,bmc->bqm", query, key, preferred_element_type="float32"
        )
        affinity = softmax(logits / jnp.sqrt(jnp.float32(key.shape[-1])))
        affinity = nn.Dropout(self.dropout, deterministic=not train)(affinity)
        return jnp.einsum("bqm,bmc->bqc", affinity.astype(self.dtype), value)
