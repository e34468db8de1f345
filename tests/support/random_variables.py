"""Random variables and fast compilation, for tests of networks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dmnet_jax.nn.prediction_state import APPEARANCE_SCALE, AREAS_SCALE
from dmnet_jax.training.initial import RUNS_ONCE

quick_jit = partial(jax.jit, compiler_options=RUNS_ONCE)


# The network multiplies these kernels; a state's trust must not saturate.
SCALES = {"appearance_weight": APPEARANCE_SCALE, "areas_weight": AREAS_SCALE}


def random_variables(shapes):
    """Returns variables of these shapes, large enough that logits of frames differ."""
    rng = np.random.default_rng(0)

    def leaf(path, x):
        name = path[-1].key
        if name == "kernel":
            value = rng.standard_normal(x.shape) * (2 / np.prod(x.shape[:-1])) ** 0.5
            return value / SCALES.get(path[-2].key if path[1:] else "", 1)
        if name in ("scale", "var"):
            return np.ones(x.shape)
        return 0.1 * rng.standard_normal(x.shape)

    return jax.tree.map(jnp.float32, jax.tree_util.tree_map_with_path(leaf, shapes))
