"""Checks that a checkpoint is compatible with the run that resumes from it.

Everything that determines the result must be unchanged. A run may be resumed with other
software versions or on another machine, but rounding then differs, so the result is not
bit-identical to that of an uninterrupted run.
"""

import dataclasses
from typing import Any

from dmnet_jax.config import Config
from dmnet_jax.config.serialization import ConfigError

# Fields that may change on resume, because they do not affect the result.
_FREE_ON_RESUME = (
    "name",
    "workdir",
    "data.root",
    "data.test_root",
    "data.threads",
    "train.epochs",
    "train.eval_every_epochs",
    "train.checkpoint_every_steps",
    "train.log_every",
    "train.max_skipped",
    "train.tensorboard",
    "distributed",
)


def check_resume(saved: Config, current: Config) -> None:
    """Checks that a run can be resumed with the current config.

    Folders, threads, logging and the number of epochs may differ; fields that determine
    the result may not.

    Raises:
        ConfigError: names every field that differs, with both values.
    """
    before, after = _fields(saved), _fields(current)
    changed = [
        f"{path} was {before[path]!r}, now {after[path]!r}"
        for path in before
        if before[path] != after[path] and path not in _FREE_ON_RESUME
    ]
    if changed:
        raise ConfigError(
            f"the saved run differs: {'; '.join(changed)}; "
            "restore these values or start a new run"
        )


def check_data(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Checks that the classes and videos are those of the saved run.

    Args:
        saved: result of `provenance.describe` for the saved run.
        current: result of `provenance.describe` for the run that resumes.

    Raises:
        ConfigError: classes or videos differ; names them.
    """
    names = [[info["name"] for info in about["classes"]] for about in (saved, current)]
    pairs = [("classes", *names)] + [
        (key, saved[key], current[key]) for key in ("train_videos", "val_videos")
    ]
    for key, before, after in pairs:
        if before != after:
            raise ConfigError(
                f"the saved run has the {key.replace('_', ' ')} {', '.join(before)}; "
                f"the data now have {', '.join(after)}; pass the original data "
                "(data.root) or start a new run"
            )


def environment_changes(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Returns differences in software and machine, as "jax was 0.10.1, now 0.10.2".

    Args:
        saved: result of `provenance.describe` for the saved run.
        current: result of `provenance.describe` for the run that resumes.
    """
    before, after = (
        {
            **about.get("versions", {}),
            "devices": _count_devices(about.get("devices", [])),
            "CPU cores": about.get("cores"),
            "processes": about.get("processes"),
        }
        for about in (saved, current)
    )
    return [
        f"{name} was {before.get(name, 'absent')}, now {after.get(name, 'absent')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _count_devices(devices: list[str]) -> str:
    return ", ".join(f"{devices.count(kind)} {kind}" for kind in sorted({*devices}))


def _fields(config: Any, path: str = "") -> dict[str, Any]:
    """Returns the values of all fields by path, such as `optim.lr`."""
    fields: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            fields.update(_fields(value, f"{path}{item.name}."))
        else:
            fields[path + item.name] = value
    return fields
