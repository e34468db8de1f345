"""TDNet: several shallow networks that take turns over the frames, with attention.

Hu et al., "Temporally Distributed Networks for Fast Video Semantic Segmentation", CVPR
2020 (arXiv 2004.01800); TD2-PSP18 and TD4-PSP18 as in its public code. Frame t is
processed by path t mod P, which computes a part of the features of a full network. The
features of the P - 1 frames before, each from another path, are aligned to it by
attention. Their queries, keys and values are kept, so each frame runs one path only.

The paper's row (21.23 M, 47.60 G) matches no public variant; TD2-PSP18 is the closest.

Differences from the public code:
- its layer norm has a scale and a bias for each position of one frame size. Here they
  are defined at `norm_size` and interpolated for other sizes;
- logits are resized like those of all networks here, not with aligned corners;
- there is no teacher network. The losses on a single path and on an auxiliary head are
  kept, see `auxiliary`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.config import Config
from dmnet_jax.models.compared import (
    ComparedNetwork,
    frame_output,
    pad_frames,
    round_up_size,
)
from dmnet_jax.models.protocol import ClipBatch, Output
from dmnet_jax.models.tdnet_path import KEY, SPARSE, Encoded, Path, TDNetMemory, sparse
from dmnet_jax.nn.mobilenet import normalize
from dmnet_jax.nn.resnet import RESNET18

PATH_LOSS, AUXILIARY_LOSS = 0.5, 0.1


class TDNet(ComparedNetwork):
    """TDNet; returns logits at 1/8 resolution.

    Attributes:
        paths: P, 2 or 4.
        blocks: number of residual blocks in each stage of a path's encoder.
        width: channels of the encoder's first stage; the published width is 64.
        norm_size: height and width, at 1/8 resolution, of layer norm's parameters.
        auxiliary: in training clips, also sow logits of the current path alone and of
            a head on the third stage into the collection "auxiliary", as
            (weight, logits).
    """

    lockstep: ClassVar[bool] = True
    paths: int = 4
    blocks: tuple[int, ...] = RESNET18
    width: int = 64
    norm_size: tuple[int, int] = (64, 80)
    auxiliary: bool = False

    @classmethod
    def from_config(cls, config: Config, **fields: Any) -> Self:
        height, width = config.data.size
        auxiliary = config.optim.auxiliary_weight > 0
        return cls(norm_size=(height // 8, width // 8), auxiliary=auxiliary, **fields)

    def setup(self) -> None:
        self.branch = [
            Path(
                self.num_classes,
                steps=self.paths - 1,
                upper=number % 2 == 1,
                blocks=self.blocks,
                width=self.width,
                value_channels=self._value_channels,
                norm_size=self.norm_size,
                auxiliary=self.auxiliary,
                axis_name=self.axis_name,
                dtype=self.dtype,
            )
            for number in range(self.paths)
        ]

    @property
    def _value_channels(self) -> int:
        return self.width * (8 if self.paths == 4 else 2)

    @nn.nowrap
    def init_memory(self, batch: int, size: tuple[int, int], key: Array) -> TDNetMemory:
        """Returns an empty memory for `batch` videos with frames of `size` = (H, W)."""
        height, width = (-(-side // 8 // SPARSE) for side in round_up_size(size))
        shape = (batch, self.paths - 1, height * width)
        return TDNetMemory(
            jnp.zeros((*shape, KEY), self.dtype),
            jnp.zeros((*shape, KEY), self.dtype),
            jnp.zeros((*shape, self._value_channels), self.dtype),
            jnp.zeros(batch, jnp.int32),
        )

    def update(
        self,
        memory: TDNetMemory,
        frames: Array,
        *,
        train: bool = False,
        path: int | None = None,
    ) -> tuple[TDNetMemory, Array]:
        """See `ComparedNetwork.update`. A static `path` avoids the `nn.switch`."""
        x = normalize(frames, "torch").astype(self.dtype)

        def run(branch: Path, memory: TDNetMemory, x: Array) -> tuple[Encoded, Array]:
            encoded = branch.encode(x, train=train)
            full = memory.count >= self.paths - 1
            return encoded, branch.decode(memory, encoded, full, train=train)

        if self.is_initializing():
            for branch in self.branch:
                encoded, logits = run(branch, memory, x)
                if self.auxiliary:
                    branch.head_on_third(encoded.third, train=train)
        elif path is not None:
            encoded, logits = run(self.branch[path], memory, x)
        else:
            index = memory.count[0] % self.paths
            encoded, logits = self._switch(index, run, memory, x)
        query, key, value = jax.tree.map(
            lambda old, new: jnp.concatenate([old[:, 1:], new[:, None]], 1),
            (memory.query, memory.key, memory.value),
            sparse(encoded),
        )
        return TDNetMemory(query, key, value, memory.count + 1), logits

    def clip(
        self,
        batch: ClipBatch,
        key: Array,
        *,
        train: bool = False,
        batch_statistics: bool = False,
        memory_gradient: bool = False,
    ) -> Output:
        """See `ComparedNetwork.clip`. T must be P. The gradient flows to all frames.

        The path of the current frame is drawn from the key and is the same for all
        clips and devices. Each path encodes one frame of the clip, in turn.
        """
        current = jax.random.randint(key, (), 0, self.paths)
        if self.axis_name is not None and train:
            current = jax.lax.all_gather(current, self.axis_name)[0]
        videos, length, height, width = batch.frames.shape[:4]
        x = pad_frames(batch.frames.reshape(-1, height, width, 3))
        x = normalize(x, "torch").astype(self.dtype)
        x = x.reshape(videos, length, *x.shape[1:])
        # Frame t of the clip is for path current + 1 + t, modulo P.
        encoded = [
            branch.encode(x[:, (number - current - 1) % self.paths], train=train)
            for number, branch in enumerate(self.branch)
        ]
        stacked = jax.tree.map(lambda *maps: jnp.stack(maps), *encoded)
        order = (current + 1 + jnp.arange(self.paths - 1)) % self.paths
        before = sparse(jax.tree.map(lambda x: x[order], stacked))
        query, key, value = (jnp.moveaxis(x, 0, 1) for x in before)
        count = jnp.full(videos, self.paths - 1, jnp.int32)
        memory = TDNetMemory(query, key, value, count)
        frame = jax.tree.map(lambda x: x[current], stacked)
        full = batch.frames_mask.all(axis=1)

        def run(
            branch: Path, memory: TDNetMemory, frame: Encoded
        ) -> tuple[Array, tuple[Array, Array] | None]:
            logits = branch.decode(memory, frame, full, train=train)
            if not self.auxiliary:
                return logits, None
            alone = branch.decode(memory, frame, jnp.zeros_like(full), train=train)
            return logits, (alone, branch.head_on_third(frame.third, train=train))

        logits, others = self._switch(current, run, memory, frame)
        if others is not None:
            self.sow("auxiliary", "path", (PATH_LOSS, others[0]))
            self.sow("auxiliary", "third", (AUXILIARY_LOSS, others[1]))
        return frame_output(logits, (height, width))

    def _switch(self, index: Array, run: Callable[..., Any], *operands: Any) -> Any:
        """Calls `run(path, *operands)` with the path at a traced `index`."""
        branches = [
            lambda module, *operands, number=number: run(
                module.branch[number], *operands
            )
            for number in range(self.paths)
        ]
        return nn.switch(index, branches, self, *operands)
