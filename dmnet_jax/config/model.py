"""The network part of a run's configuration; see `schema`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple


class Network(NamedTuple):
    """A network's class and properties, available without importing JAX.

    Attributes:
        path: module and class, relative to `dmnet_jax.models`.
        options: values of the class's own fields.
        window: number of frames before the current one in a training clip.
    """

    path: str
    options: Mapping[str, Any] = MappingProxyType({})
    window: int = 0


NETWORKS: dict[str, Network] = {
    "dmnet": Network("dmnet.DMNet"),
    "ternausnet11": Network("ternausnet.TernausNet", {"layers": 11}),
    "ternausnet16": Network("ternausnet.TernausNet", {"layers": 16}),
    "linknet34": Network("linknet.LinkNet"),
    "raunet": Network("linknet.LinkNet", {"attention": True}),
    "paanet_style": Network("paanet.PAANetStyle"),
    "lwanet": Network("lwanet.LWANet"),
    "td2_psp18": Network("tdnet.TDNet", {"paths": 2}, window=1),
    "td4_psp18": Network("tdnet.TDNet", {"paths": 4}, window=3),
    "tapnet11": Network("tapnet.TAPNet", window=1),
}
"""Networks by `model.name`."""

SHIPPED_WIDTHS = {"rendered": 256, "rendered-fast": 128}
"""`width` of the shipped networks, by their value of `pretrained`."""
SHIPPED_STATE_PARTS = ("appearance", "areas", "age")
"""`state_parts` of the shipped networks."""

if TYPE_CHECKING:
    NetworkName = str
else:
    NetworkName = Literal[tuple(NETWORKS)]


@dataclass(frozen=True)
class ModelConfig:
    """The network: DMNet (paper, section 2), an ablation (Table 2), or a baseline.

    The baselines (Table 1) only use `pretrained`, `encoder` (LWANet) and `dtype`.

    Attributes:
        name: The network. linknet34, raunet and paanet_style stand in for PAANet, which
            was never released; tapnet11 is MF-TAPNet and needs the extra "flow".
        local: Local memory: none, non-local attention, ConvLSTM, BottleneckLSTM, or
            the paper's ELA.
        global_memory: Use active global aggregation (AGA, section 2.3).
        global_values: What the global memory stores of an admitted frame: "features"
            (the paper), or "masks", the frame's own prediction (beyond the paper).
        local_size: Number of frames in the local memory (tau).
        num_reads: Number of frames read from the global memory (n).
        global_size: Slots of the global memory; when it is full, the oldest frame is
            replaced.
        key_channels: Channels of keys.
        value_channels: Channels of values, half of `width`.
        width: Channels of the stored features and of the decoder.
        state: Carry predictions from frame to frame, gated by the trust in each pixel
            of the current frame (beyond the paper).
        state_parts: Inputs of the trust besides both predictions: "appearance", how
            unusual the change of brightness, color, contrast and sharpness is, "areas",
            whether classes moved or only lost or gained area, and "age", the time since
            the position was last trusted.
        share_key_value: Share one key/value projection between both memories.
        attention_dropout: Dropout rate of affinities, in training.
        pretrained: Weights to start from: "imagenet" (shipped, MobileNetV2 only),
            "rendered" or "rendered-fast" (shipped, all of DMNet except its memories;
            the prediction state as well, if no stage trains it), "none", or a file.
        encoder: Framework whose MobileNetV2 is reproduced (padding, epsilon, input
            range); must match the pretrained weights.
        min_confidence: Lower bound of the confidence for admission to the global memory
            (alpha, at most 0). None: calibrated on the training videos.
        max_similarity: Upper bound of the similarity for admission (beta). None:
            calibrated on the training videos.
        dtype: Type of features; scores and losses are always float32.
    """

    name: NetworkName = "dmnet"
    local: Literal["none", "nl", "clstm", "blstm", "ela"] = "ela"
    global_memory: bool = True
    global_values: Literal["features", "masks"] = "features"
    local_size: int = 4
    num_reads: int = 4
    global_size: int = 225
    key_channels: int = 64
    value_channels: int = 128
    width: int = 256
    state: bool = False
    state_parts: tuple[Literal["appearance", "areas", "age"], ...] = SHIPPED_STATE_PARTS
    share_key_value: bool = False
    attention_dropout: float = 0.1
    pretrained: str = "imagenet"
    encoder: Literal["keras", "torch"] = "keras"
    min_confidence: float | None = None
    max_similarity: float | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def has_memory(self) -> bool:
        """Whether a DMNet has any memory."""
        return self.local != "none" or self.global_memory or self.state

    @property
    def shipped_state(self) -> bool:
        """Whether the shipped prediction state fits, as the network's only memory."""
        return (
            self.state
            and self.state_parts == SHIPPED_STATE_PARTS
            and self.pretrained in SHIPPED_WIDTHS
            and self.local == "none"
            and not self.global_memory
        )

    @property
    def has_masks(self) -> bool:
        """Whether a DMNet has a global memory of masks."""
        return self.global_memory and self.global_values == "masks"

    @property
    def window(self) -> int:
        """Number of frames before the current one in a training clip."""
        if self.name == "dmnet":
            return 0 if self.local == "none" else self.local_size
        return NETWORKS[self.name].window

    @property
    def past(self) -> int:
        """Number of frames in the global memory of a training clip."""
        if self.name != "dmnet" or not self.global_memory:
            return 0
        return self.num_reads if self.global_values == "features" else 0

    @property
    def thresholds(self) -> dict[str, float]:
        """Thresholds that are set, and therefore not calibrated."""
        thresholds = {
            "min_confidence": self.min_confidence,
            "max_similarity": self.max_similarity,
        }
        return {name: value for name, value in thresholds.items() if value is not None}
