"""Experiments that compare networks; run `python -m dmnet_jax.experiments`."""
