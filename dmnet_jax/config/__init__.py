"""Typed and validated configurations, Python recipes, and their JSON form."""

from dmnet_jax.config.data import (
    DataConfig,
    SyntheticConfig,
)
from dmnet_jax.config.model import (
    ModelConfig,
)
from dmnet_jax.config.recipes import (
    load_config,
)
from dmnet_jax.config.schema import (
    Config,
    OptimConfig,
    StageConfig,
    TrainConfig,
    from_json,
    to_json,
    validate,
)
from dmnet_jax.config.serialization import (
    ConfigError,
)

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "StageConfig",
    "SyntheticConfig",
    "TrainConfig",
    "from_json",
    "load_config",
    "to_json",
    "validate",
]
