"""Every test runs on the CPU with four virtual devices and without a network."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Several tests compile the same programs, in both processes of `-n 2`, which
    # inherit the variable.
    programs = tempfile.mkdtemp(prefix="dmnet-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
    atexit.register(shutil.rmtree, programs, ignore_errors=True)

# XLA's newer emitters for fusions take half of the time that tests spend compiling. A
# jaxlib that does not know a flag ends the process, so others keep their defaults.
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = " ".join(
        ("--xla_cpu_use_fusion_emitters=false", os.environ.get("XLA_FLAGS", ""))
    )

import jax

jax.config.update("jax_num_cpu_devices", 4)
