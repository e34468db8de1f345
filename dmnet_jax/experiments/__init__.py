"""Experiments that compare networks: `python -m dmnet_jax.experiments`."""
