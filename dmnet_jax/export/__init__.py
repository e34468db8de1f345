"""A trained network as files for other programs: `python -m dmnet_jax.export`."""
