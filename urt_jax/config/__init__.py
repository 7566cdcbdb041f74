"""The settings of every stage as frozen records, and every check of a user's ``ConfigDict`` before a device is used.

A config file names its stage (``config.stage = "grpo"``) and lists only the knobs that the experiment changes; every
other knob has the default of its declaration and can be set on the command line by name. A record is declared in the
package that reads it (``losses.policy``, ``training.settings``, ``data.settings``, ...); this package combines them to
one record per stage. ``resolve`` turns the ``ConfigDict`` into that record.
"""

from urt_jax.config.parts import (
    LearnerSettings,
    LengthConfig,
    LoraConfig,
    ModelSettings,
    PixelsConfig,
    RowLengths,
    ShapeConfig,
    StageConfig,
)
from urt_jax.config.planning import AttainedConfig, BenchConfig, PeersConfig, PlanConfig, PlanRowsConfig
from urt_jax.config.resolve import as_json, resolve, with_defaults
from urt_jax.config.settings import SettingConfig
from urt_jax.config.stages import (
    STAGES,
    AblationConfig,
    BaseConfig,
    DataConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    GrpoConfig,
    PipelineConfig,
    RejectConfig,
    SftConfig,
    StudyConfig,
    SupervisedConfig,
    TrainingConfig,
)
from urt_jax.generation.sampling import PoolSampling, RolloutSampling

__all__ = [
    "STAGES",
    "AblationConfig",
    "AttainedConfig",
    "BaseConfig",
    "BenchConfig",
    "DataConfig",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GrpoConfig",
    "LearnerSettings",
    "LengthConfig",
    "LoraConfig",
    "ModelSettings",
    "PeersConfig",
    "PipelineConfig",
    "PixelsConfig",
    "PlanConfig",
    "PlanRowsConfig",
    "PoolSampling",
    "RejectConfig",
    "RolloutSampling",
    "RowLengths",
    "SettingConfig",
    "SftConfig",
    "ShapeConfig",
    "StageConfig",
    "StudyConfig",
    "SupervisedConfig",
    "TrainingConfig",
    "as_json",
    "resolve",
    "with_defaults",
]
