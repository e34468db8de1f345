"""Fast CPU implementations of operations that XLA's CPU backend runs slowly.

These are plain functions of arrays. They equal the operators of `nn.operators` and
their gradients up to rounding. Only `nn.operators` calls them, and only in programs
lowered for CPUs.
"""
