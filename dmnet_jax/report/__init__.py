"""HTML report about a run: `python -m dmnet_jax.report --help`."""
