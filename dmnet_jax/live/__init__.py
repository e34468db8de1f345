"""A web page that shows a network running live: `python -m dmnet_jax.live --help`."""
