"""DMNet: a lightweight segmentation network with a local and a global memory.

Wang, Jin et al., "Efficient Global-Local Memory for Real-time Instrument
Segmentation of Robotic Surgical Video", MICCAI 2021.

One time step is one pure function, `DMNet.update(memory, features)`. Training clips
(`models/clips.py`), whole-video evaluation, live streams and exports all call it, so
the streamed network is exactly the trained one. Nothing is computed twice for a frame:
the local memory stores the per-frame projections of its reader, and a frame's key and
value for the global memory are computed when the frame is admitted.

Shapes: `B` videos, `T` frames, `H W` frame size (multiples of 32), `h w` = H/32 W/32.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.memory import DualMemory
from dmnet_jax.models import aggregation, clips
from dmnet_jax.models.features import Decoded, Features
from dmnet_jax.models.folding import fold
from dmnet_jax.models.protocol import ClipBatch, Memories, Output, VideoSegmenter
from dmnet_jax.models.scales import decode, rescaled_probabilities
from dmnet_jax.nn.appearance import appearance
from dmnet_jax.nn.attention import KeyValue, KeyValueProjection, NonLocal
from dmnet_jax.nn.layers import Dense1x1, Padding, relu6
from dmnet_jax.nn.mask_memory import MaskMemory
from dmnet_jax.nn.mobilenet import (
    STAGES,
    MobileNetV2,
    Stages,
    normalize,
    unit_range,
)
from dmnet_jax.nn.prediction_state import PARTS, Part, PredictionState
from dmnet_jax.nn.recurrent import BottleneckLSTM, ConvLSTM
from dmnet_jax.nn.refinenet import RefineNetDecoder

Local = Literal["none", "nl", "clstm", "blstm", "ela"]
GlobalValues = Literal["features", "masks"]

# The paper's alpha and beta (section 3): means of r and s over the authors' features.
# They do not transfer to other features; calibration replaces them.
PAPER_MIN_CONFIDENCE = -0.08
PAPER_MAX_SIMILARITY = -4.65

TINY: dict[str, Any] = {
    "stages": tuple((1, channels, 1, stride) for _, channels, _, stride in STAGES),
    "pooling_stages": 1,
}
"""Fields of a small network: one block per stage, one pooling step per level."""


class DMNet(VideoSegmenter):
    """The network and its ablations (paper Table 2).

    Attributes:
        num_classes: number of classes, including background.
        local: how the last `local_size` frames are used: "ela" (the paper's method:
            BottleneckLSTM, then non-local attention), "blstm" or "clstm" (only a
            recurrent cell), "nl" (attention over the window, no recurrence), "none".
        global_memory: whether to use active global aggregation (AGA), section 2.3.
        global_values: what the global memory stores of an admitted frame: keys and
            values of its features, as in the paper, or "masks", what the network
            predicted for it (`nn.mask_memory`). Not in the paper.
        local_size: the paper's tau, number of frames before the current one.
        num_reads: the paper's n, number of frames read from the global memory.
        global_size: slots of the global memory. The default of 225, the length of an
            EndoVis17 video, equals the paper's unbounded memory there. A full memory
            replaces its oldest frame.
        key_channels: channels of the keys.
        value_channels: channels of the values; must be half of `width`.
        share_key_value: whether ELA and AGA share one key/value projection, as in the
            authors' release. The paper describes separate ones.
        attention_dropout: dropout rate of the affinities in training.
        encoder: the framework whose MobileNetV2 is reproduced: "keras" (input scaled
            to [-1, 1], "SAME" padding, epsilon 1e-3) or "torch" (ImageNet mean and
            standard deviation, symmetric padding, epsilon 1e-5).
        width: channels of the remembered features and of the decoder.
        stages: stages of the encoder, see `MobileNetV2`.
        pooling_stages: stages of each chained residual pooling in the decoder.
        state: whether predictions are carried from frame to frame, gated by how far
            each pixel of the current frame is trusted (`nn.prediction_state`). Not in
            the paper.
        state_parts: see `PredictionState`.
        scales: further sizes, relative to the frame's, at which a frame is segmented
            outside training; the probabilities are averaged (`models.scales`). See
            `at_scales`. Not in the paper.
        is_folded: whether norms are folded into the convolutions, see `folded`.
        axis_name: device axis over which batch norm is synchronized in training.
        dtype: dtype of features; scores and logits are always float32.
    """

    local: Local = "ela"
    global_memory: bool = True
    global_values: GlobalValues = "features"
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
    state: bool = False
    state_parts: tuple[Part, ...] = PARTS
    scales: tuple[float, ...] = ()
    is_folded: bool = False
    mobilenet: ClassVar[bool] = True

    @classmethod
    def tiny(cls, num_classes: int, **fields: Any) -> "DMNet":
        """Returns a network that compiles in seconds: `TINY` updated with `fields`."""
        return cls(num_classes, **{**TINY, **fields})

    def setup(self) -> None:
        if 2 * self.value_channels != self.width:
            raise ValueError(
                f"value_channels is {self.value_channels}; readout and value are "
                f"concatenated to {self.width} channels, so it must be "
                f"{self.width // 2}"
            )
        self.backbone = MobileNetV2(
            padding=self.encoder,
            epsilon=self._epsilon,
            axis_name=self.axis_name,
            folded=self.is_folded,
            stages=self.stages,
            dtype=self.dtype,
        )
        self.lateral7 = Dense1x1(self.width, dtype=self.dtype)
        self.lateral8 = Dense1x1(self.width, dtype=self.dtype)
        self.decoder = RefineNetDecoder(
            self.num_classes,
            self.width,
            self.pooling_stages,
            self.is_folded,
            dtype=self.dtype,
        )
        if self.local in ("ela", "blstm"):
            self.recurrent = BottleneckLSTM(self.width, dtype=self.dtype)
        elif self.local == "clstm":
            self.recurrent = ConvLSTM(self.width, dtype=self.dtype)
        if self.local in ("ela", "nl"):
            self.local_key_value = self._projection()
        if self.stores_features and not (self.share_key_value and self._local_attends):
            self.global_key_value = self._projection()
        if self.stores_masks:
            self.mask_memory = self._mask_memory()
        if self.state:
            self.prediction_state = self._prediction_state()
        self.attend = NonLocal(self.attention_dropout, dtype=self.dtype)
        self.min_confidence = self.variable(
            "thresholds", "min_confidence", jnp.float32, PAPER_MIN_CONFIDENCE
        )
        self.max_similarity = self.variable(
            "thresholds", "max_similarity", jnp.float32, PAPER_MAX_SIMILARITY
        )

    @property
    def memories(self) -> Memories:
        return Memories(self.local != "none", self.global_memory)

    @nn.nowrap
    def single_frame(self) -> Self:
        return self.clone(local="none", global_memory=False, state=False)

    @nn.nowrap
    def folded(self, variables: Any) -> tuple[Self, Any]:
        return self.clone(is_folded=True), fold(variables, self._epsilon)

    @property
    def _epsilon(self) -> float:
        return 1e-3 if self.encoder == "keras" else 1e-5

    @property
    def _local_attends(self) -> bool:
        return self.local in ("ela", "nl")

    @property
    def stores_features(self) -> bool:
        """Whether there is a global memory of features, as in the paper."""
        return self.global_memory and self.global_values == "features"

    @property
    def stores_masks(self) -> bool:
        """Whether there is a global memory of masks."""
        return self.global_memory and self.global_values == "masks"

    def _projection(self) -> KeyValueProjection:
        return KeyValueProjection(
            self.key_channels, self.value_channels, dtype=self.dtype
        )

    @nn.nowrap
    def _prediction_state(self) -> PredictionState:
        return PredictionState(parts=self.state_parts, dtype=self.dtype)

    @nn.nowrap
    def _mask_memory(self) -> MaskMemory:
        return MaskMemory(self.key_channels, dtype=self.dtype)

    def encode(self, frames: Array, *, train: bool = False) -> Features:
        """Encodes frames [N, H, W, 3]: uint8 RGB, or normalized float."""
        height, width = frames.shape[1:3]
        if height % 32 or width % 32:
            raise ValueError(
                f"frames are {height}x{width}; both sides must be multiples of 32"
            )
        x = normalize(frames, self.encoder) if frames.dtype == jnp.uint8 else frames
        features = self.encode_normalized(x, train=train)
        if self.scales:
            features = features.replace(rescaled=rescaled_probabilities(self, x))
        return features

    def encode_normalized(self, x: Array, *, train: bool = False) -> Features:
        """Encodes normalized frames [N, H, W, 3] at their own size only."""
        quarter, eighth, sixteenth_64, sixteenth_96, deep160, deep320 = self.backbone(
            x.astype(self.dtype), train=train
        )
        top = relu6(self.lateral8(deep320) + self.lateral7(deep160))
        look = appearance(unit_range(x, self.encoder))
        return Features(quarter, eighth, sixteenth_64, sixteenth_96, top, look)

    @property
    def only_corrects(self) -> bool:
        """Whether no memory enters the decoder: all correct its predictions."""
        return self.local == "none" and not self.stores_features

    def recent(self, top: Array) -> Any:
        """Computes what the local memory stores for features [N, h, w, width].

        This is the per-frame part of the reader: a projection [N, h, w, ...], or keys
        and values. An empty pytree without a local memory.
        """
        if self.local == "none":
            return {}
        if self.local == "nl":
            return self.local_key_value(top)
        return self.recurrent.project(top)

    def stored(self, top: Array) -> Any:
        """Computes what the global memory stores for features [N, h, w, width].

        Keys and values, or an empty pytree without a global memory of features.
        """
        if not self.stores_features:
            return {}
        if self.share_key_value and self._local_attends:
            return self.local_key_value(top)
        return self.global_key_value(top)

    @nn.nowrap
    def init_memory(
        self,
        batch: int,
        size: tuple[int, int],
        key: Array,
        *,
        global_size: int | None = None,
    ) -> DualMemory:
        """Returns an empty memory for `batch` videos with frames of `size` = (H, W).

        Each video has its own PRNG key for reads, stored as raw key data so that
        exported programs can hold it.
        """

        def map_of(channels: int) -> Any:
            shape = (size[0] // 32, size[1] // 32, channels)
            return jax.ShapeDtypeStruct(shape, self.dtype)

        key_value = KeyValue(map_of(self.key_channels), map_of(self.value_channels))
        stored: Any = key_value if self.stores_features else {}
        if self.stores_masks:
            stored = self._mask_memory().shapes(size, self.num_classes)
        features = map_of((4 if self.local == "clstm" else 1) * self.width)
        recent: Any = {"none": {}, "nl": key_value}.get(self.local, features)

        carry = self._prediction_state() if self.state else None

        def one(key: Array) -> DualMemory:
            return mem.init_dual(
                map_of(self.width),
                local_size=self.local_size if self.local != "none" else 1,
                global_size=global_size or self.global_size,
                key=jax.random.key_data(key),
                recent=recent,
                stored=stored,
                state=carry.init_carry(size, self.num_classes) if carry else {},
            )

        return jax.vmap(one)(jax.random.split(key, batch))

    @nn.nowrap
    def reset(self, memory: DualMemory, what: Array) -> DualMemory:
        return jax.vmap(mem.reset)(memory, what)

    def update(
        self,
        memory: DualMemory,
        features: Features,
        *,
        active: Array | None = None,
        train: bool = False,
    ) -> tuple[DualMemory, Output]:
        """One time step: reads both memories, decodes, and updates the memories.

        Args:
            memory: memory of the frames before, leaves [B, ...].
            features: features of this frame.
            active: bool [B], which videos have a frame; see `step`.
            train: enables dropout; needs a "dropout" rng.

        Returns:
            The updated memory and the frame's result.
        """
        top = features.top
        active = jnp.ones(len(top), bool) if active is None else active
        recent = self.recent(top)
        x = aggregation.aggregate_local(self, memory, top, recent, train)
        if self.stores_features:
            x = aggregation.aggregate_global(self, memory, top, x, active, train)
        logits, fine = decode(self, x, features)
        frame = Decoded(logits, fine, top, features.appearance)
        return self.correct(memory, frame, recent, active)

    def correct(
        self, memory: DualMemory, frame: Decoded, recent: Any, active: Array
    ) -> tuple[DualMemory, Output]:
        """The part of a time step after the decoder: corrects its logits, remembers.

        Args:
            memory: memory of the frames before, leaves [B, ...].
            frame: decoder output for this frame.
            recent: what the local memory stores for the frame, see `recent`.
            active: bool [B], which videos have a frame.

        Returns:
            The updated memory and the frame's result.
        """
        logits, stored = frame.logits, None
        if self.stores_masks:
            assert frame.fine is not None  # see `Decoded`
            stored = self.mask_memory.store(frame.fine, logits)
            readout = aggregation.read_global(self, memory)
            logits = self.mask_memory(readout, stored, frame.fine, logits)
        state, trust = memory.state, None
        if self.state:
            logits, state, trust = self.prediction_state(
                state, logits, frame.appearance, active
            )
        # Masks are judged and stored as the frame itself shows them, so that no error
        # is confirmed by what was read of it.
        judged = frame.logits if self.stores_masks else logits
        memory, gates = aggregation.remember(
            self, memory, frame.top, recent, judged, stored, active
        )
        return replace(memory, state=state), Output(logits, *gates, trust)

    def step(
        self,
        memory: DualMemory,
        frame: Array,
        *,
        active: Array | None = None,
        train: bool = False,
    ) -> tuple[DualMemory, Output]:
        features = self.encode(frame, train=train)
        return self.update(memory, features, active=active, train=train)

    def __call__(
        self, memory: DualMemory, frames: Array, *, train: bool = False
    ) -> tuple[DualMemory, Output]:
        """Scans `update` over frames [B, T, H, W, 3]; outputs have shape [B, T, ...].

        All frames are encoded in one batch, so in training, batch norm uses the
        statistics of all B*T frames.
        """
        return clips.roll(self, memory, frames, train=train)

    def clip(self, batch: ClipBatch, key: Array, **options: Any) -> Output:
        """See `VideoSegmenter.clip` and `models.clips.clip`."""
        return clips.clip(self, batch, key, **options)
