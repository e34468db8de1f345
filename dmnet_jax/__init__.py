"""DMNet in JAX: efficient global-local memory for real-time video segmentation.

For research use; not a medical device.

The package is imported room by room (`dmnet_jax.memory`, `dmnet_jax.models.dmnet`,
...), so that using the memory library loads nothing of the network.
"""

import sys

__version__ = "0.1.0"

# Only for a command: who imports the library loads nothing but what is asked for.
if sys.argv and sys.argv[0].endswith(("-m", "train.py", "evaluate.py")):
    from data_pipelines.io.environment import report_missing_modules

    report_missing_modules()
