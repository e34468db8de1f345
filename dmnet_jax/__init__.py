"""DMNet in JAX: efficient global-local memory for real-time video segmentation.

For research use; not a medical device.

The package is imported room by room (`dmnet_jax.memory`, `dmnet_jax.models.dmnet`,
...), so that using the memory library loads nothing of the network.
"""

from data_pipelines.environment import tell_missing_modules

__version__ = "0.1.0"

tell_missing_modules()
