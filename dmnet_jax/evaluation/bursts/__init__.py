"""Burst benchmark: scores on corrupted video, and the contribution of the memory."""
