"""A Flax NNX classifier that learns from single examples through its memory.

    python examples/retrieval_memory_nnx.py

There is no training. Each example is classified by attention over the stored examples
and then stored with its class. New classes need no new weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dmnet_jax import memory

CLASSES = 5


class Memory(nnx.Variable):
    """A ring buffer that `nnx.jit` carries from call to call."""


class RetrievalClassifier(nnx.Module):
    """Classifies examples by attention over the last `capacity` examples.

    Args:
        features: number of features of an example.
        capacity: maximum number of stored examples; the oldest one is replaced.
        rngs: random number generators for the weights of the encoder.
    """

    def __init__(self, features: int, capacity: int, *, rngs: nnx.Rngs) -> None:
        self.encoder = nnx.Linear(features, 32, rngs=rngs)
        example = {"key": jnp.zeros(32), "value": jnp.zeros(CLASSES)}
        self.memory = Memory(memory.init(example, capacity=capacity))

    def key(self, x: jax.Array) -> jax.Array:
        encoded = self.encoder(x)
        return 16 * encoded / jnp.linalg.norm(encoded)  # sharp attention

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns class scores float32 [CLASSES] of an example float32 [features]."""
        read = memory.read_all(self.memory.get_value())
        return memory.attend(
            self.key(x), read.items["key"], read.items["value"], read.mask
        )

    def remember(self, x: jax.Array, label: jax.Array) -> None:
        """Stores an example with its class."""
        item = {"key": self.key(x), "value": jax.nn.one_hot(label, CLASSES)}
        ring = self.memory.get_value()
        self.memory.set_value(memory.push(ring, item, stamp=ring.count))


@nnx.jit
def observe(model: RetrievalClassifier, x: jax.Array, label: jax.Array) -> jax.Array:
    """Predicts a class, then stores the label; returns bool [], if it was correct."""
    correct = jnp.argmax(model(x)) == label
    model.remember(x, label)
    return correct


def main(examples: int = 150) -> tuple[float, float]:
    """Returns the accuracy on the first 10 and on the last 100 examples."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CLASSES, 16))
    labels = rng.integers(CLASSES, size=examples)
    xs = (centers[labels] + 0.5 * rng.normal(size=(examples, 16))).astype(np.float32)

    model = RetrievalClassifier(16, capacity=64, rngs=nnx.Rngs(0))
    correct = [bool(observe(model, x, y)) for x, y in zip(xs, labels, strict=True)]
    first, last = sum(correct[:10]) / 10, sum(correct[-100:]) / 100
    print(f"accuracy: first 10 examples {first:.2f}, last 100 {last:.2f}")
    return first, last


if __name__ == "__main__":
    main()
