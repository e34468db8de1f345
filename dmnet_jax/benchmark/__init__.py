"""What the code costs on the machine at hand: `python -m dmnet_jax.benchmark`."""
