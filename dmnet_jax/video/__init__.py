"""Frames in and out: folders, files, cameras, network streams, rendered video."""
