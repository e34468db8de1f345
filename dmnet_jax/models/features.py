"""Encoded frames, the input of DMNet's time step.

Shapes: `B` clips, `N` frames, `T` frames of a clip, `H W` frame size, `h w` =
H/32 W/32.
"""

import dataclasses

from flax import struct
from jax import Array


class Features(struct.PyTreeNode):
    """Encoder outputs for one frame. The memories are computed from `top`.

    Attributes:
        quarter: [N, H/4, W/4, 24].
        eighth: [N, H/8, W/8, 32].
        sixteenth_64: [N, H/16, W/16, 64].
        sixteenth_96: [N, H/16, W/16, 96].
        top: [N, H/32, W/32, width], the fused two deepest outputs, in [0, 6].
        appearance: float32 [N, H/16, W/16, 5], see `nn.appearance`; not of the encoder.
        rescaled: float32 [N, H/4, W/4, num_classes], see `models.scales`. None without
            `DMNet.scales`, and never in training.
    """

    quarter: Array
    eighth: Array
    sixteenth_64: Array
    sixteenth_96: Array
    top: Array
    appearance: Array
    rescaled: Array | None = None

    @property
    def finer(self) -> tuple[Array, Array, Array, Array]:
        """The maps that the decoder adds to `top`."""
        return self.quarter, self.eighth, self.sixteenth_64, self.sixteenth_96


class Decoded(struct.PyTreeNode):
    """Decoder output of one frame, from a `DMNet.only_corrects`.

    This is all that its memories need of the frame.

    Attributes:
        logits: [N, H/4, W/4, num_classes], before the state corrects them.
        fine: [N, H/8, W/8, width], the decoder's map. None without a global memory of
            masks, which alone uses it.
        top: [N, H/32, W/32, width], see `Features`.
        appearance: float32 [N, H/16, W/16, 5], see `Features`.
    """

    logits: Array
    fine: Array | None
    top: Array
    appearance: Array


FEATURES = tuple(
    field.name for field in dataclasses.fields(Features) if field.name != "rescaled"
)
"""Names of the maps that a `FeatureCache` stores."""
DECODED = tuple(field.name for field in dataclasses.fields(Decoded))


class EncodedClip(struct.PyTreeNode):
    """A `ClipBatch` with encoded frames.

    Attributes:
        features: features of the current frames.
        window: [B, T-1, h, w, width], `Features.top` of the window before the current
            frame; [B, 0, ...] without a local memory.
        window_mask: bool [B, T-1], which frames of the window are valid.
        past: [B, n, h, w, width], `Features.top` of earlier frames; [B, 0, ...]
            without a global memory.
        past_mask: bool [B, n], which earlier frames are valid.
    """

    features: Features
    window: Array
    window_mask: Array
    past: Array
    past_mask: Array


def flat(x: Array) -> Array:
    """Reshapes [B, T, ...] -> [B*T, ...]."""
    return x.reshape(-1, *x.shape[2:])
