"""Import and export of weights: ImageNet, the authors' checkpoints, safetensors."""
