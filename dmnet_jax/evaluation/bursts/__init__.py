"""How a network does on disturbed video, and what its memory has to do with it."""
