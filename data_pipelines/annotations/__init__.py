"""Annotations as CVAT and COCO tools write them, to a folder of videos and back.

`python -m data_pipelines.annotations` makes a folder that trains; the writers of `cvat`
and `coco` are what `python -m dmnet_jax.predict --format` uses.
"""
