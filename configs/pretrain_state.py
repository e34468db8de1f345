"""The prediction state of the shipped network, trained on rendered surgery.

The shipped single-frame network is frozen. Only the state (`nn.prediction_state`) is
trained, on rendered sequences with bursts of blur, glare, occlusion, black and frozen
frames. No real images are used; bursts of smoke, blood and low light are never used.

    python train.py --config configs/pretrain_state.py

The shipped state was trained for 300 steps, which took 29 minutes on 2 shared cores of
an Intel Xeon, most of them to render and decode the cached scenes (2026-11-26). The
memory of masks was trained by the same recipe, with a state that is not shipped:

    python train.py --config configs/pretrain_state.py --model.global-memory \\
        --model.global-values masks --model.num-reads 4 --model.global-size 8 \\
        --model.key-channels 32

Measured: docs/model_card.md has the scores on real video.
"""

from dataclasses import replace

from dmnet_jax.config import Config, StageConfig, load_config


def get_config() -> Config:
    config = load_config("pretrain")
    return replace(
        config,
        name="pretrain_state",
        data=replace(
            config.data,
            corrupt=0.6,
            cuts=0.4,
            scale=(0.75, 1.6),
            frame_step=2,
            synthetic=replace(
                config.data.synthetic, cached_scenes=50, cached_frames=24
            ),
        ),
        model=replace(config.model, state=True, pretrained="rendered"),
        optim=replace(config.optim, drop_epochs=(2,), warmup_steps=20),
        train=replace(
            config.train,
            batch_size=6,
            stages=(
                StageConfig(
                    "state",
                    3,
                    lr_scale=2.0,
                    train="memory",
                    recipe="rollout",
                    cached_views=2,
                    corrupted_views=2,
                ),
            ),
            eval_every_epochs=3,
            rollout_frames=10,
            rollout_truncate=10,
        ),
    )
