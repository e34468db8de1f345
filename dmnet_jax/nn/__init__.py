"""Flax Linen leaves of the networks: layers, encoders, decoders, memories' readers."""
