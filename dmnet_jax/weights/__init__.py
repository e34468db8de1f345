"""Weights in and out: ImageNet, the authors' checkpoints, safetensors files."""
