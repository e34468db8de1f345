"""DMNet in JAX: efficient global-local memory for real-time video segmentation.

For research use; not a medical device.

Import its packages separately (`dmnet_jax.memory`, `dmnet_jax.models.dmnet`, ...), so
that using the memory library does not import the networks.
"""

import sys

__version__ = "0.1.0"

# Only if run as a command: importing the library must not import anything else.
if sys.argv and sys.argv[0].endswith(("-m", "train.py", "evaluate.py")):
    from data_pipelines.io.environment import report_missing_modules

    report_missing_modules()
