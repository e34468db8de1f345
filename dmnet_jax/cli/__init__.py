"""The commands that train and evaluate, as train.py, evaluate.py and `dmnet-...`."""
