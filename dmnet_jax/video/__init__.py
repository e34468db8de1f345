"""Video input and output: folders, files, cameras, streams, rendering; overlays."""
