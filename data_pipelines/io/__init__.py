"""Files, names, pictures: everything that is read from or written to a disk."""
