"""Three convolutions in place of a DMNet, for tests of the code around a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dmnet_jax import models, training
from dmnet_jax.models.protocol import ClipBatch, Memories, Output, VideoSegmenter
from tests.support.tiny_run import linear, tiny_config


class Toy(VideoSegmenter):
    """Has batch norm, dropout, and a layer that the memory stage trains."""

    num_classes: int = 3
    whole: bool = True

    @property
    def memories(self) -> Memories:
        return Memories(local=False, global_=True)

    @nn.nowrap
    def init_memory(self, batch: int, size: Any, key: Any) -> Any:
        return jnp.zeros(1)

    @nn.nowrap
    def single_frame(self) -> "Toy":
        return self.clone(whole=False)

    @nn.compact
    def encode(self, frames: Any, *, train: bool = False) -> Output:
        for name in ("min_confidence", "max_similarity"):
            self.variable("thresholds", name, jnp.float32, 0.0)
        x = nn.Conv(8, (3, 3), strides=4, name="encoder")(frames / 255)
        norm = partial(nn.BatchNorm, axis_name=self.axis_name, name="norm")
        x = nn.relu(norm(use_running_average=not train)(x))
        if self.whole:
            x = nn.Conv(8, (3, 3), name="recurrent")(x)
            x = nn.Dropout(0.1, deterministic=not self.has_rng("dropout"))(x)
        logits = nn.Conv(self.num_classes, (3, 3), name="head")(x)
        gate = -jnp.abs(logits).mean((1, 2, 3))
        return Output(logits, gate, gate, gate > -1)

    def clip(
        self, batch: ClipBatch, key: Any, *, batch_statistics: bool = False, **_: Any
    ) -> Output:
        return self.encode(batch.frames[:, -1], train=batch_statistics)

    def __call__(
        self, memory: Any, frames: Any, *, train: bool = False
    ) -> tuple[Any, Output]:
        output = self.encode(frames.reshape(-1, *frames.shape[2:]), train=train)
        return memory + 1, jax.tree.map(lambda x: x[None], output)


def toy_state(seed: int) -> training.TrainState:
    """Returns a state with fixed weights; the seed determines the key."""
    frames = np.zeros((1, 1, 64, 64, 3), np.uint8)
    variables = jax.jit(Toy().init)(jax.random.key(1), jnp.zeros(1), frames)
    return training.create_state(variables, linear(), key=jax.random.key(seed))


def toy_step(axis_name: str | None, **changes: Any) -> Any:
    """Returns `train_step`; with `whole=False`, without device-dependent dropout."""
    return partial(
        training.train_step,
        model=Toy(axis_name=axis_name, **changes),
        tx=linear(),
        optim=tiny_config().optim,
        axis_name=axis_name,
    )


@contextmanager
def use_toy_networks() -> Iterator[None]:
    """Replaces every network by a toy in the block."""

    def build(config: Any, axis_name: str | None = None) -> Toy:
        return Toy(config.data.num_classes, axis_name=axis_name)

    with mock.patch.object(models, "build", build):
        yield
