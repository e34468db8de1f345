"""The paper's tables and figures, measured: `python -m dmnet_jax.tables`."""
