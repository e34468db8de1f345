"""The datasets as they are distributed, one package each."""
