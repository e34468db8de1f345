"""Reproduces the paper's tables and figures: `python -m dmnet_jax.tables`."""
