"""The part of a run's configuration that says which network; see `schema`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """The network: DMNet (paper, section 2) with its ablations (Table 2), or another.

    Of the other networks of Table 1, `pretrained`, `encoder` (LWANet's) and `dtype` are
    used; what belongs to DMNet's memories is not looked at.

    Attributes:
        name: Which network. linknet34, raunet and paanet_style stand for PAANet, which
            was never released; tapnet11 is MF-TAPNet's and needs the extra "flow".
        local: Local memory: none, non-local attention, ConvLSTM, BottleneckLSTM, or
            the paper's ELA.
        global_memory: Active global aggregation (AGA, section 2.3).
        local_size: Frames before the current one that are kept (tau).
        num_reads: Frames read from the global memory (n).
        global_size: Slots of the global memory; the oldest frame leaves a full one.
        key_channels: Width of keys.
        value_channels: Width of values; half of `width`.
        width: Channels of what the memories hold and of the decoder.
        state: Carry predictions from frame to frame, gated by how far each pixel of the
            current frame is trusted (beyond the paper).
        state_parts: What its trust sees besides the frame and both predictions: the
            jump of features since it was last trusted, and how long ago that was.
        share_key_value: One key/value projection for both memories.
        attention_dropout: On affinities, in training.
        pretrained: Weights to start from: "imagenet" (shipped, of MobileNetV2 alone),
            "rendered" (shipped, all of DMNet but its memories), "none", or a file.
        encoder: Whose MobileNetV2 is imitated (padding, epsilon, input range); must
            match the pretrained weights.
        min_confidence: Least confidence admitted to the global memory (alpha, at most
            0). None: calibrated on the training videos.
        max_similarity: Greatest similarity admitted to it (beta). None: calibrated.
        dtype: Of features; scores and losses are float32 always.
    """

    name: Literal[
        "dmnet",
        "ternausnet11",
        "ternausnet16",
        "linknet34",
        "raunet",
        "paanet_style",
        "lwanet",
        "td2_psp18",
        "td4_psp18",
        "tapnet11",
    ] = "dmnet"
    local: Literal["none", "nl", "clstm", "blstm", "ela"] = "ela"
    global_memory: bool = True
    local_size: int = 4
    num_reads: int = 4
    global_size: int = 225
    key_channels: int = 64
    value_channels: int = 128
    width: int = 256
    state: bool = False
    state_parts: tuple[Literal["jump", "age"], ...] = ("jump", "age")
    share_key_value: bool = False
    attention_dropout: float = 0.1
    pretrained: str = "imagenet"
    encoder: Literal["keras", "torch"] = "keras"
    min_confidence: float | None = None
    max_similarity: float | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def remembers(self) -> bool:
        """Whether a DMNet has any memory."""
        return self.local != "none" or self.global_memory or self.state

    @property
    def window(self) -> int:
        """Frames before the current one in a training clip."""
        if self.name == "dmnet":
            return 0 if self.local == "none" else self.local_size
        return {"td2_psp18": 1, "td4_psp18": 3, "tapnet11": 1}.get(self.name, 0)

    @property
    def past(self) -> int:
        """Frames of a training clip that the global memory holds."""
        return self.num_reads if self.name == "dmnet" and self.global_memory else 0

    @property
    def thresholds(self) -> dict[str, float]:
        """Those that are set, and so need no calibration."""
        chosen = {
            "min_confidence": self.min_confidence,
            "max_similarity": self.max_similarity,
        }
        return {name: value for name, value in chosen.items() if value is not None}
