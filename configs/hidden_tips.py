"""Instrument types that only the past tells: rendered video with hidden tips.

Four types look the same except for their tips, which dip into the tissue for seconds
(`data_pipelines.synthetic.hidden_tips`). A single-frame network is trained first, then
its memories alone, on sequences: a global memory of masks (`nn.mask_memory`), and the
prediction state (`nn.prediction_state`).

    python -m data_pipelines.synthetic --layout hidden-tips --size 128x160 \\
        --out datasets/hidden_tips
    python train.py --config configs/hidden_tips.py
    python -m dmnet_jax.experiments hidden-tips \\
        --checkpoints runs/hidden_tips/fold0-seed0

`--model.no-state` and `--model.no-global-memory` leave one of them out. Scores are in
docs/memory.md.
"""

from dataclasses import replace

from dmnet_jax.config import Config, DataConfig, StageConfig, load_config

VIDEOS = tuple(f"video{number:03d}" for number in range(140))


def get_config() -> Config:
    config = load_config("endovis15_state")
    return replace(
        config,
        name="hidden_tips",
        data=DataConfig(
            dataset="folder",
            root="datasets/hidden_tips",
            train=VIDEOS[:120],
            val=VIDEOS[120:],
            num_classes=5,
            size=(128, 160),
            scale=(0.8, 1.25),
            photometric=0.3,
            frame_step=4,
        ),
        model=replace(
            config.model,
            global_memory=True,
            global_values="masks",
            global_size=8,
            num_reads=8,
            key_channels=32,
        ),
        optim=replace(
            config.optim, drop_epochs=(3,), dice_weight=0.0, cross_entropy_weight=1.0
        ),
        train=replace(
            config.train,
            batch_size=8,
            stages=(
                StageConfig("single frame", 4, train="single_frame"),
                replace(
                    config.train.stages[1],
                    name="memory",
                    epochs=4,
                    cached_views=2,
                    corrupted_views=0,
                    corruptions=1,
                ),
            ),
            eval_every_epochs=4,
            rollout_frames=16,
            rollout_truncate=16,
            rollout_stride=2,
            rollout_still=0.0,
        ),
    )
