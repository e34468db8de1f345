"""Segments a video, a folder, a camera: `python -m dmnet_jax.predict --help`."""
