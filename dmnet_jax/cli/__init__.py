"""The train and evaluate commands: train.py, evaluate.py, `dmnet-train`, ...."""
