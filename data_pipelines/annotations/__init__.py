"""Converts exports of annotation tools (CVAT, COCO, Labelme) to folders of videos.

`python -m data_pipelines.annotations` writes a folder for training. The writers in
`cvat` and `coco` are used by `python -m dmnet_jax.predict --format`.
"""
