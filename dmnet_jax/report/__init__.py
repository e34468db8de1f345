"""One page about one run: `python -m dmnet_jax.report --help`."""
