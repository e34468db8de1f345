"""Configs: JSON round trip, types, ranges, and the compatibility check."""

import dataclasses
import json
import math
from typing import Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmnet_jax.checkpoint.compatibility import check_resume
from dmnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    StageConfig,
    TrainConfig,
    from_json,
    load_config,
    to_json,
    validate,
)
from dmnet_jax.config.serialization import ConfigError


def values(kind):
    """Generates finite values of a type annotation."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{name: values(hint) for name, hint in hints.items()})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is not None:
        return st.none() | values(arguments[0])
    return {
        bool: st.booleans(),
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=5),
    }[kind]


def leaves(config, path=""):
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{path}{item.name}.")
        else:
            yield path + item.name, get_type_hints(type(config))[item.name]


def changed(config, path, value):
    head, _, rest = path.partition(".")
    inner = changed(getattr(config, head), rest, value) if rest else value
    return dataclasses.replace(config, **{head: inner})


ALL_LEAVES = dict(leaves(Config()))


@settings(max_examples=60, deadline=None)
@given(values(Config))
def test_json_round_trip_is_exact(config):
    again = from_json(to_json(config))
    assert again == config
    assert repr(again) == repr(config)  # distinguishes 1 and 1.0, -0.0 and 0.0


def test_defaults_are_valid_and_those_of_the_paper():
    config = validate(Config())
    assert config == Config()
    assert config.data.size == (512, 640)
    assert (config.model.local_size, config.model.num_reads) == (4, 4)
    assert (config.optim.lr, config.optim.drop_epochs) == (1e-4, (70,))
    assert (config.train.epochs, config.train.batch_size) == (100, 16)
    assert config.resolved_stages == (StageConfig("all", 100),)


def test_missing_fields_get_their_defaults():
    assert from_json('{"model": {"local_size": 6}}') == Config(
        model=ModelConfig(local_size=6)
    )


@pytest.mark.parametrize("path", ALL_LEAVES)
def test_the_error_for_a_wrong_type_names_the_path(path):
    kind = ALL_LEAVES[path]
    tree = json.loads(to_json(Config()))
    *folders, last = path.split(".")
    node = tree
    for folder in folders:
        node = node[folder]
    node[last] = {"no": "such"} if kind is str else "text"
    with pytest.raises(ConfigError, match=rf"^{path}( |\.0 )is ") as caught:
        from_json(json.dumps(tree))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"model": {"local_sise": 3}}', "model.local_sise: no such field; .*local_si"),
        ('{"optimm": {}}', "^optimm: no such field; did you mean optim"),
        ('{"zzz": 1}', "^zzz: no such field$"),
        ('{"model": 3}', "^model is 3; it must be a group"),
        ("[]", "the configuration is"),
        ("{", "not JSON"),
        ('{"model": {"local_size": 4.0}}', "model.local_size is 4.0; .*whole number"),
        ('{"model": {"local_size": true}}', "model.local_size is True"),
        ('{"model": {"global_memory": 1}}', "model.global_memory is 1"),
        ('{"model": {"local": "x"}}', "model.local is 'x'; .*'ela'"),
        ('{"data": {"size": [1]}}', r"data.size is \[1\]; it must have 2"),
        ('{"data": {"size": [1, "a"]}}', "data.size.1 is 'a'"),
        ('{"optim": {"lr": NaN}}', "optim.lr is nan; .*finite"),
        ('{"optim": {"lr": 1e999}}', "optim.lr is inf; .*finite"),
        ('{"optim": {"lr": null}}', "optim.lr is None"),
        ('{"train": {"stages": [{"name": "a"}]}}', "train.stages.0.epochs is missing"),
    ],
)
def test_invalid_json_gives_a_one_line_error(text, message):
    with pytest.raises(ConfigError, match=message):
        from_json(text)


@pytest.mark.parametrize(
    "path, value",
    [
        ("data.size", (256, 300)),
        ("data.size", (0, 32)),
        ("data.size", (-32, 32)),
        ("data.fold", -1),
        ("data.num_classes", 1),
        ("data.num_classes", 256),
        ("data.scale", (1.1, 0.9)),
        ("data.scale", (0.0, 1.0)),
        ("data.scale", (math.nan, 1.0)),
        ("data.photometric", 1.5),
        ("data.frame_step", 0),
        ("data.max_labels", -1),
        ("data.threads", -1),
        ("data.synthetic.sequences", ()),
        ("data.synthetic.rate", 0.0),
        ("data.synthetic.frames", 0),
        ("data.synthetic.size", (0, 8)),
        ("data.synthetic.seed", -1),
        ("model.local_size", 0),
        ("model.num_reads", 0),
        ("model.global_size", 3),
        ("model.key_channels", 0),
        ("model.value_channels", 0),
        ("model.attention_dropout", 1.0),
        ("model.pretrained", ""),
        ("model.min_confidence", 0.1),
        ("model.max_similarity", math.inf),
        ("optim.lr", 0.0),
        ("optim.lr", math.nan),
        ("optim.weight_decay", -1.0),
        ("optim.drop_epochs", (70, 70)),
        ("optim.drop_epochs", (0,)),
        ("optim.drop_factor", 1.5),
        ("optim.warmup_steps", -1),
        ("optim.dice_weight", 0.0),
        ("optim.cross_entropy_weight", -1.0),
        ("optim.clip_norm", 0.0),
        ("train.epochs", 0),
        ("train.batch_size", 0),
        ("train.seed", -1),
        ("train.seed", 2**32),
        ("train.eval_every_epochs", 0),
        ("train.checkpoint_every_steps", -1),
        ("train.log_every", 0),
        ("workdir", ""),
        ("name", "a/b"),
    ],
)
def test_the_error_for_a_value_out_of_range_names_the_path(path, value):
    with pytest.raises(ConfigError) as caught:
        validate(changed(Config(), path, value))
    assert str(caught.value).startswith(path)
    assert "must be" in str(caught.value)


def test_rules_that_involve_several_fields():
    with pytest.raises(ConfigError, match=r"data.val is \('b',\).*not in data.train"):
        validate(Config(data=DataConfig(train=("a", "b"), val=("b",))))
    with pytest.raises(ConfigError, match="train.stages.0"):
        validate(Config(train=TrainConfig(stages=(StageConfig("warm", 0),))))
    validate(Config(model=ModelConfig(local="none", local_size=0)))
    with pytest.raises(ConfigError, match='train.stages.0.*lwanet needs train "all"'):
        alone = TrainConfig(stages=(StageConfig("one", 1, train="single_frame"),))
        validate(Config(model=ModelConfig(name="lwanet"), train=alone))
    validate(Config(optim=OptimConfig(dice_weight=0, focal_weight=1)))


def test_clip_lengths_follow_from_the_network():
    def lengths(**changes):
        model = ModelConfig(**changes)
        return model.window, model.past

    assert lengths() == (4, 4)
    assert lengths(local="none", num_reads=2) == (0, 2)
    assert lengths(global_memory=False) == (4, 0)
    assert lengths(name="ternausnet16") == (0, 0)
    assert lengths(name="td4_psp18") == (3, 0)
    assert lengths(name="tapnet11") == (1, 0)


def test_validate_converts_to_declared_types():
    config = validate(
        Config(
            data=DataConfig(size=[256, 320]),  # type: ignore[arg-type]
            optim=OptimConfig(lr=1),
        )
    )
    assert config.data.size == (256, 320)
    assert isinstance(config.optim.lr, float)


def test_stages_replace_the_default_stage():
    stages = (StageConfig("warm", 5, train="memory"), StageConfig("all", 20))
    assert Config(train=TrainConfig(stages=stages)).resolved_stages == stages


def test_a_memory_of_masks_is_trained_on_sequences():
    masks = ModelConfig(local="none", global_values="masks")
    assert masks.past == 0 and masks.has_memory
    alone = StageConfig("single frame", 20, train="single_frame")
    for stages in ((), (alone, StageConfig("memory", 5, train="memory"))):
        with pytest.raises(ConfigError, match='"clip"; .* "masks" needs "rollout"'):
            validate(Config(model=masks, train=TrainConfig(stages=stages)))
    rollout = StageConfig("memory", 5, train="memory", recipe="rollout")
    validate(Config(model=masks, train=TrainConfig(stages=(alone, rollout))))


def test_stages_of_modules_that_the_network_lacks_are_left_out():
    state, masks = (
        StageConfig(part, 1, train=part, recipe="rollout")
        for part in ("state", "masks")
    )
    train = TrainConfig(stages=(state, masks))
    both = ModelConfig(local="none", global_values="masks", state=True)
    for model, expected in (
        (both, (state, masks)),
        (dataclasses.replace(both, state=False), (masks,)),
        (dataclasses.replace(both, global_memory=False), (state,)),
        (dataclasses.replace(both, global_values="features"), (state,)),
    ):
        assert Config(model=model, train=train).resolved_stages == expected


def test_sequences_of_live_scenes_cannot_repeat_a_frame():
    config = load_config("pretrain_state")
    still = dataclasses.replace(config.train, rollout_still=0.5)
    validate(dataclasses.replace(config, train=still))  # its views are cached
    stage = StageConfig("state", 1, train="state", recipe="rollout")
    live = dataclasses.replace(still, stages=(stage,))
    with pytest.raises(ConfigError, match='rollout_still is 0.5; .* "state" needs'):
        validate(dataclasses.replace(config, train=live))


@pytest.mark.parametrize(("corrupt", "corruptions"), [(0.5, 0), (0.0, 2)])
def test_corruptions_need_corrupted_frames(corrupt, corruptions):
    config = load_config("endovis15_state")
    stage = StageConfig("one", 1, corruptions=corruptions)
    train = dataclasses.replace(config.train, stages=(stage,))
    data = dataclasses.replace(config.data, corrupt=corrupt)
    with pytest.raises(ConfigError, match=f"0.corruptions is {corruptions}; it must"):
        validate(dataclasses.replace(config, train=train, data=data))


def test_memory_stages_are_left_out_for_a_network_without_memory():
    base = ModelConfig(local="none", global_memory=False)
    memory = StageConfig("memory", 5, train="memory")
    alone = StageConfig("single frame", 20, train="single_frame")
    config = validate(Config(model=base, train=TrainConfig(stages=(alone, memory))))
    assert config.resolved_stages == (alone,)
    with pytest.raises(ConfigError, match="train.stages trains only the memory"):
        validate(Config(model=base, train=TrainConfig(stages=(memory,))))


def test_a_memory_that_no_stage_trains_is_the_shipped_state_or_that_of_another_run():
    alone = TrainConfig(stages=(StageConfig("one", 1, train="single_frame"),))
    state = ModelConfig(
        local="none", global_memory=False, state=True, pretrained="rendered"
    )
    assert validate(Config(model=state, train=alone)).takes_shipped_state
    for field, value in (
        ("pretrained", "imagenet"),
        ("state_parts", ("appearance", "age")),
        ("global_memory", True),
        ("local", "ela"),
    ):
        model = dataclasses.replace(state, **{field: value})
        with pytest.raises(ConfigError, match="does not train the network's memory"):
            validate(Config(model=model, train=alone))
        start = dataclasses.replace(alone, start_from="runs/other")
        assert not validate(Config(model=model, train=start)).takes_shipped_state


def other(kind, value):
    """Returns a value of a type that is not `value`."""
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if kind is bool:
        return not value
    if get_origin(kind) is tuple:
        if value and not isinstance(value[-1], str):
            return (*value[:-1], value[-1] + 1)
        return value[:-1] or ("new",)
    if value is None:
        return -1.0
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("path", ALL_LEAVES)
def test_resuming_rejects_a_different_config(path):
    saved, value = Config(), Config()
    for name in path.split("."):
        value = getattr(value, name)
    new = changed(saved, path, other(ALL_LEAVES[path], value))
    free = {"name", "workdir", "data.root", "data.threads", "train.epochs"}
    free |= {"train.eval_every_epochs", "train.checkpoint_every_steps"}
    free |= {"train.log_every", "train.max_skipped", "train.tensorboard"}
    free |= {"distributed", "data.test_root"}
    check_resume(saved, saved)
    if path in free:
        check_resume(saved, new)
    else:
        with pytest.raises(ConfigError, match=rf"differs: {path} was .*, now "):
            check_resume(saved, new)


def test_both_spellings_of_a_union_are_accepted():
    from dmnet_jax.config.serialization import from_plain

    for kind in (Union[float, None], float | None):  # noqa: UP007
        assert from_plain(kind, None, "x") is None
        assert from_plain(kind, 2, "x") == 2.0


def test_random_edits_of_a_saved_config_raise_config_errors_only():
    rng = np.random.default_rng(0)
    valid = json.loads(to_json(Config()))
    odd = [None, -1, 2**70, 10**400, 1.5, "", "x", [], {}, [[]], True, [1, 2], "\x1b"]
    rejected = 0
    for _ in range(400):
        changed = json.loads(json.dumps(valid))
        node, key = changed, ""
        while isinstance(node, dict) and node:
            key = list(node)[rng.integers(len(node))]
            if not isinstance(node[key], dict) or rng.random() < 0.25:
                break
            node = node[key]
        node[key] = odd[rng.integers(len(odd))]
        try:
            assert isinstance(validate(from_json(json.dumps(changed))), Config)
        except ConfigError as error:
            rejected += 1
            assert "\n" not in str(error)
    assert rejected > 250
    with pytest.raises(ConfigError, match="not JSON"):
        from_json("[" * 100_000)


@pytest.mark.parametrize(
    "data, message",
    [
        ({"size": (32, 640 * 32)}, r"data\.size is .* a valid image size"),
        ({"size": (64000, 64000)}, r"data\.size is .* a valid image size"),
        ({"max_labels": 3, "frame_step": 2}, "data.frame_step is 2; it must be 1 with"),
        (
            {"max_labels": 3, "dataset": "rendered"},
            "data.max_labels is 3; .*whose stream never",
        ),
    ],
)
def test_rules_of_training_data(data, message):
    with pytest.raises(ConfigError, match=message):
        validate(Config(data=DataConfig(**data)))


def test_width_must_be_twice_value_channels():
    narrow = ModelConfig(width=64, value_channels=32)
    assert validate(Config(model=narrow)).model.width == 64
    with pytest.raises(ConfigError, match="model.width.*twice model.value_channels"):
        validate(Config(model=ModelConfig(width=64)))
    rendered = ModelConfig(width=64, value_channels=32, pretrained="rendered")
    with pytest.raises(ConfigError, match="model.width.*shipped network"):
        validate(Config(model=rendered))
