"""The commands `dmnet-train` (train.py) and `dmnet-evaluate` (evaluate.py)."""
