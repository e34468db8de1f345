"""Export of trained networks for other runtimes: `python -m dmnet_jax.export`."""
