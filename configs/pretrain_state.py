"""The memories of the shipped network, trained on rendered surgery.

The shipped single-frame network is frozen. First the prediction state
(`nn.prediction_state`) is trained, then the global memory of masks (`nn.mask_memory`),
each with the other one frozen, on rendered sequences with bursts of blur, glare,
occlusion, black and frozen frames. No real images are used; bursts of smoke, blood and
low light are never used.

    python train.py --config configs/pretrain_state.py

The shipped state is the mean of the weights of two runs of the first stage, with
`--model.no-global-memory --data.cuts 0` and with `--data.cuts 0.05`; the shipped masks
were trained by an earlier form of this recipe. docs/model_card.md has the commands, the
time and the scores on real video.
"""

from dataclasses import replace

from dmnet_jax.config import Config, StageConfig, load_config


def get_config() -> Config:
    config = load_config("pretrain")
    state = StageConfig(
        "state",
        3,
        lr_scale=2.0,
        train="state",
        recipe="rollout",
        cached_views=2,
        corrupted_views=2,
    )
    return replace(
        config,
        name="pretrain_state",
        data=replace(
            config.data,
            corrupt=0.6,
            cuts=0.05,
            scale=(0.75, 1.6),
            frame_step=2,
            synthetic=replace(
                config.data.synthetic, cached_scenes=50, cached_frames=24
            ),
        ),
        model=replace(
            config.model,
            state=True,
            global_memory=True,
            global_values="masks",
            key_channels=32,
            num_reads=2,
            global_size=2,
            pretrained="rendered",
        ),
        optim=replace(config.optim, drop_epochs=(2,), warmup_steps=20),
        train=replace(
            config.train,
            batch_size=6,
            stages=(state, replace(state, name="masks", train="masks")),
            eval_every_epochs=3,
            rollout_frames=10,
            rollout_truncate=10,
            rollout_still=0.5,
        ),
    )
