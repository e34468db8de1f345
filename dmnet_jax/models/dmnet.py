"""DMNet: a light segmentation network with a local and a global memory.

Wang, Jin et al., "Efficient Global-Local Memory for Real-time Instrument
Segmentation of Robotic Surgical Video", MICCAI 2021.

One time step is one pure function, `DMNet.update(memory, features)`. Training clips
(`models/clips.py`), whole-video evaluation and live streams all call it, so what is
trained is what is streamed.

Shapes: `B` videos, `T` frames, `H W` frame size (multiples of 32), `h w` = H/32 W/32.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.memory import DualMemory
from dmnet_jax.models.protocol import Output
from dmnet_jax.nn.attention import KeyValue, KeyValueProjection, NonLocal
from dmnet_jax.nn.layers import Dense1x1, Padding, relu6
from dmnet_jax.nn.mobilenet import STAGES, MobileNetV2, Stages, normalise
from dmnet_jax.nn.recurrent import BottleneckLSTM, ConvLSTM
from dmnet_jax.nn.refinenet import RefineNetDecoder

Local = Literal["none", "nl", "clstm", "blstm", "ela"]

# The paper's alpha and beta (section 3): means of r and s over its authors' features.
# They fit no other features; calibration replaces them.
PAPER_MIN_CONFIDENCE = -0.08
PAPER_MAX_SIMILARITY = -4.65


# How the network's variables enter a scan over time.
ROLLED: dict[str, Any] = {
    "variable_broadcast": ("params", "thresholds"),
    "split_rngs": {"params": False, "dropout": True},
}


class Features(struct.PyTreeNode):
    """What the encoder makes of one frame; `top` is what the memories hold.

    Attributes:
        quarter: [B, H/4, W/4, 24].
        eighth: [B, H/8, W/8, 32].
        sixteenth_64: [B, H/16, W/16, 64].
        sixteenth_96: [B, H/16, W/16, 96].
        top: [B, H/32, W/32, width], the two deepest outputs fused; in [0, 6].
    """

    quarter: Array
    eighth: Array
    sixteenth_64: Array
    sixteenth_96: Array
    top: Array


FEATURES = tuple(field.name for field in dataclasses.fields(Features))

TINY: dict[str, Any] = {
    "stages": tuple((1, channels, 1, stride) for _, channels, _, stride in STAGES),
    "pooling_stages": 1,
}
"""Fields of a network with one block a stage and one pooling a level."""


class DMNet(nn.Module):
    """The network and its ablations (paper Table 2).

    Attributes:
        num_classes: outputs, background included.
        local: what is done with the last `local_size` frames: "ela" (the paper's:
            BottleneckLSTM then non-local attention), "blstm" or "clstm" (a recurrent
            cell alone), "nl" (attention over the window, no recurrence), "none".
        global_memory: active global aggregation (AGA), section 2.3.
        local_size: the paper's tau, frames before the current one.
        num_reads: the paper's n, frames read from the global memory.
        global_size: slots of the global memory; 225, an EndoVis17 video, makes it
            the paper's unbounded memory there. Past it the oldest frame is replaced.
        key_channels: width of keys.
        value_channels: width of values; twice it must be `width`.
        share_key_value: one key/value projection for ELA and AGA, as the authors'
            release has it; the paper describes one each.
        attention_dropout: on affinities, in training.
        encoder: which framework's MobileNetV2 is imitated: "keras" (input scaled to
            [-1, 1], "SAME" padding, epsilon 1e-3) or "torch" (ImageNet mean and
            deviation, symmetric padding, epsilon 1e-5).
        width: channels of what the memories hold and of the decoder.
        stages: of the encoder, see `MobileNetV2`.
        pooling_stages: of each chained residual pooling in the decoder.
        axis_name: device axis over which batch norm is synchronised in training.
        dtype: of features; scores, softmax and logits are float32 always.
    """

    num_classes: int
    local: Local = "ela"
    global_memory: bool = True
    local_size: int = 4
    num_reads: int = 4
    global_size: int = 225
    key_channels: int = 64
    value_channels: int = 128
    share_key_value: bool = False
    attention_dropout: float = 0.1
    encoder: Padding = "keras"
    width: int = 256
    stages: Stages = STAGES
    pooling_stages: int = 4
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @classmethod
    def tiny(cls, num_classes: int, **fields: Any) -> "DMNet":
        """A network that compiles in seconds: `TINY`, with other `fields` as given."""
        return cls(num_classes, **{**TINY, **fields})

    def setup(self) -> None:
        if 2 * self.value_channels != self.width:
            raise ValueError(
                f"value_channels is {self.value_channels}; readout and value together "
                f"must fill the decoder's {self.width} channels, so it must be "
                f"{self.width // 2}"
            )
        self.backbone = MobileNetV2(
            padding=self.encoder,
            epsilon=1e-3 if self.encoder == "keras" else 1e-5,
            axis_name=self.axis_name,
            stages=self.stages,
            dtype=self.dtype,
        )
        self.lateral7 = Dense1x1(self.width, dtype=self.dtype)
        self.lateral8 = Dense1x1(self.width, dtype=self.dtype)
        self.decoder = RefineNetDecoder(
            self.num_classes, self.width, self.pooling_stages, dtype=self.dtype
        )
        if self.local in ("ela", "blstm"):
            self.recurrent = BottleneckLSTM(self.width, dtype=self.dtype)
        elif self.local == "clstm":
            self.recurrent = ConvLSTM(self.width, dtype=self.dtype)
        if self.local in ("ela", "nl"):
            self.local_key_value = self._projection()
        if self.global_memory and not (self.share_key_value and self._local_attends):
            self.global_key_value = self._projection()
        self.attend = NonLocal(self.attention_dropout, dtype=self.dtype)
        self.min_confidence = self.variable(
            "thresholds", "min_confidence", jnp.float32, PAPER_MIN_CONFIDENCE
        )
        self.max_similarity = self.variable(
            "thresholds", "max_similarity", jnp.float32, PAPER_MAX_SIMILARITY
        )

    @property
    def _local_attends(self) -> bool:
        return self.local in ("ela", "nl")

    def _projection(self) -> KeyValueProjection:
        return KeyValueProjection(
            self.key_channels, self.value_channels, dtype=self.dtype
        )

    def remember(self, top: Array) -> KeyValue | dict:
        """What the global memory stores of features [B, h, w, width]: keys and values.

        Nothing (an empty pytree) without a global memory.
        """
        if not self.global_memory:
            return {}
        if self.share_key_value and self._local_attends:
            return self.local_key_value(top)
        return self.global_key_value(top)

    def encode(self, frames: Array, *, train: bool = False) -> Features:
        """Encodes frames [N, H, W, 3]: uint8 RGB, or float already normalised."""
        height, width = frames.shape[1:3]
        if height % 32 or width % 32:
            raise ValueError(
                f"frames are {height}x{width}; both sides must be multiples of 32"
            )
        x = normalise(frames, self.encoder) if frames.dtype == jnp.uint8 else frames
        quarter, eighth, sixteenth_64, sixteenth_96, deep160, deep320 = self.backbone(
            x.astype(self.dtype), train=train
        )
        top = relu6(self.lateral8(deep320) + self.lateral7(deep160))
        return Features(quarter, eighth, sixteenth_64, sixteenth_96, top)

    @nn.nowrap
    def init_memory(
        self,
        batch: int,
        size: tuple[int, int],
        key: Array,
        *,
        global_size: int | None = None,
    ) -> DualMemory:
        """An empty memory for `batch` videos of frames `size` = (H, W).

        Every leaf leads with [B]; each video draws its reads from its own key.
        """
        h, w = size[0] // 32, size[1] // 32
        top = jax.ShapeDtypeStruct((h, w, self.width), self.dtype)
        stored: KeyValue | dict = {}
        if self.global_memory:
            stored = KeyValue(
                jnp.zeros((h, w, self.key_channels), self.dtype),
                jnp.zeros((h, w, self.value_channels), self.dtype),
            )

        def one(key: Array) -> DualMemory:
            return mem.init_dual(
                top,
                local_size=self.local_size if self.local != "none" else 1,
                global_size=global_size or self.global_size,
                key=key,
                stored=stored,
            )

        return jax.vmap(one)(jax.random.split(key, batch))

    def update(
        self, memory: DualMemory, features: Features, *, train: bool = False
    ) -> tuple[DualMemory, Output]:
        """One time step: read both memories, decode, remember.

        Args:
            memory: of the frames before this one, leaves [B, ...].
            features: of this frame.
            train: dropout on; needs a "dropout" rng.

        Returns:
            The memory with this frame in it, and the frame's result.
        """
        own = self.remember(features.top)
        x = self._aggregate_local(memory, features.top, train)
        if isinstance(own, KeyValue):
            x = self._aggregate_global(memory, x, own, train)
        logits = self.decoder(
            x,
            features.quarter,
            features.eighth,
            features.sixteenth_64,
            features.sixteenth_96,
        ).astype(jnp.float32)

        confidence = jax.vmap(mem.confidence)(jax.nn.softmax(logits))
        reference = memory.reference
        similarity = jnp.where(
            reference.count > 0,
            jax.vmap(lambda ring, top: mem.similarity(mem.latest(ring), top))(
                reference, features.top
            ),
            -jnp.inf,
        )
        policy = mem.all_of(
            mem.confident(self.min_confidence.value),
            mem.dissimilar(self.max_similarity.value),
        )
        memory, admitted = jax.vmap(
            lambda m, top, r, stored: mem.advance(
                m, top, r, policy=policy, stored=stored
            )
        )(memory, features.top, confidence, own)
        return memory, Output(logits, confidence, similarity, admitted)

    def _aggregate_local(self, memory: DualMemory, top: Array, train: bool) -> Array:
        """Local aggregation (section 2.2): [B, h, w, width] -> same shape."""
        if self.local == "none":
            return top
        readout = jax.vmap(lambda m: mem.read_last(m.local, self.local_size))(memory)
        # [B, tau + 1, h, w, width], oldest first
        window = jnp.concatenate([readout.items, top[:, None]], axis=1)
        # Before the video's start its oldest frame stands in: a still picture.
        first = self.local_size - readout.mask.sum(axis=1)
        index = jnp.maximum(jnp.arange(self.local_size + 1), first[:, None])
        window = jnp.take_along_axis(window, index[..., None, None, None], axis=1)
        if self.local == "nl":
            query = self.local_key_value(top)
            flat = window.reshape(-1, *top.shape[1:])
            items = jax.tree.map(
                lambda x: x.reshape(*window.shape[:2], *x.shape[1:]),
                self.local_key_value(flat),
            )
            mask = jnp.ones(window.shape[:2], bool)
            return self.attend(query, items, mask, train=train)
        temporal = self.recurrent(window)
        if self.local != "ela":
            return temporal
        own = self.local_key_value(temporal)
        itself = jax.tree.map(lambda x: x[:, None], own)  # a memory of one frame
        mask = jnp.ones((top.shape[0], 1), bool)
        return self.attend(own, itself, mask, train=train)

    def _aggregate_global(
        self, memory: DualMemory, x: Array, own: KeyValue, train: bool
    ) -> Array:
        """Active global aggregation (section 2.3): [B, h, w, width] -> same shape."""

        def read(m: DualMemory) -> mem.Readout:
            return mem.read_uniform(m.global_, self.num_reads, mem.read_key(m))

        readout = jax.vmap(read)(memory)
        # Where nothing can be read, the current frame stands in for its own memory.
        empty = ~readout.mask.any(axis=1)
        items = jax.tree.map(
            lambda slots, mine: jnp.where(
                empty.reshape(-1, *[1] * (slots.ndim - 1)), mine[:, None], slots
            ),
            readout.items,
            own,
        )
        query = self.remember(x)
        assert isinstance(query, KeyValue)
        return self.attend(query, items, readout.mask | empty[:, None], train=train)

    def step(self, memory: DualMemory, frame: Array) -> tuple[DualMemory, Output]:
        """One frame of each live video: frame uint8 [B, H, W, 3]."""
        return self.update(memory, self.encode(frame))

    def __call__(
        self, memory: DualMemory, frames: Array, *, train: bool = False
    ) -> tuple[DualMemory, Output]:
        """Rolls `update` over frames [B, T, H, W, 3]; outputs lead with [B, T].

        All frames are encoded in one batch, so in training batch norm sees B*T of
        them at once.
        """
        batch, length = frames.shape[:2]
        flat = frames.reshape(-1, *frames.shape[2:])
        features = self.encode(flat, train=train)
        by_time = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(batch, length, *x.shape[1:]), 1, 0),
            features,
        )
        roll = nn.scan(
            lambda module, memory, features: module.update(
                memory, features, train=train
            ),
            **ROLLED,
        )
        memory, outputs = roll(self, memory, by_time)
        return memory, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), outputs)
