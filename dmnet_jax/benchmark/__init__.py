"""Speed benchmarks: `python -m dmnet_jax.benchmark`."""
