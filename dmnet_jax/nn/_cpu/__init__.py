"""What XLA's CPU backend has no fast path for, written so that it runs fast there.

Plain functions of arrays, equal to the operators of `nn.operators` and their gradients
up to rounding. That module alone calls them, and only in programs for CPUs.
"""
