"""Frames in and out: folders, files, cameras, streams, rendered video; overlays."""
