"""Whether a saved run may be gone on with, and what to say if it may.

What decides the result must be as it was. Other software or another machine may go on
too, but rounds differently: then the run is not the one that was begun, bit for bit.
"""

import dataclasses
from typing import Any

from dmnet_jax.config import Config
from dmnet_jax.config.serialization import ConfigError

# What a resumed run may change without becoming another experiment.
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


def check_resume(saved: Config, now: Config) -> None:
    """Refuses to continue a run as another one.

    Folders, threads, logging and the number of epochs may change; what
    decides the result may not.

    Raises:
        ConfigError: names every field that differs, with both values.
    """
    before, after = _fields(saved), _fields(now)
    changed = [
        f"{path} was {before[path]!r}, now {after[path]!r}"
        for path in before
        if before[path] != after[path] and path not in _FREE_ON_RESUME
    ]
    if changed:
        raise ConfigError(
            f"the saved run differs: {'; '.join(changed)}; "
            "restore these or start another run"
        )


def check_data(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to go on with other classes or videos.

    Args:
        saved: `provenance.describe` of the run that was begun.
        now: of the one that would go on.

    Raises:
        ConfigError: names what differs.
    """
    names = [[info["name"] for info in about["classes"]] for about in (saved, now)]
    pairs = [("classes", *names)] + [
        (what, saved[what], now[what]) for what in ("train_videos", "val_videos")
    ]
    for what, before, after in pairs:
        if before != after:
            raise ConfigError(
                f"the saved run has the {what.replace('_', ' ')} {', '.join(before)}; "
                f"the data now have {', '.join(after)}; give the data it was begun "
                "with (data.root) or start another run"
            )


def environment_changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs in software and machine, "jax was 0.10.1, now 0.10.2".

    Args:
        saved: `provenance.describe` of the run that was begun.
        now: of the one that goes on.
    """
    before, after = (
        {
            **about.get("versions", {}),
            "devices": _counted(about.get("devices", [])),
            "CPU cores": about.get("cores"),
            "processes": about.get("processes"),
        }
        for about in (saved, now)
    )
    return [
        f"{name} was {before.get(name, 'absent')}, now {after.get(name, 'absent')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _counted(devices: list[str]) -> str:
    return ", ".join(f"{devices.count(kind)} {kind}" for kind in sorted({*devices}))


def _fields(config: Any, path: str = "") -> dict[str, Any]:
    """Values by path, `optim.lr`."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            found.update(_fields(value, f"{path}{item.name}."))
        else:
            found[path + item.name] = value
    return found
