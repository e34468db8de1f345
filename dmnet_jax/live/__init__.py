"""A page on which a network is watched at work: `python -m dmnet_jax.live --help`."""
