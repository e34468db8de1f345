"""Flax Linen building blocks: layers, encoders, decoders and memory readers."""
