"""The settings of every stage as frozen records; every check of a user's ``ConfigDict`` before a device is touched.

A config file names its stage (``config.stage = "grpo"``) and lists only what that experiment decides; every other knob
has its default where it is declared and can be set on the command line by name. A record lives in the room that reads
it (``losses.policy``, ``training.settings``, ``data.settings``, ...); here they are bound together, one record a
stage. ``ConfigDict`` stops in ``resolve``.
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
