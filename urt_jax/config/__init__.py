"""The settings of every stage as frozen records; every check of a user's ``ConfigDict`` before a device is touched.

A config file names its stage (``config.stage = "grpo"``) and lists only what that experiment decides; every other knob
has its default in ``parts`` or ``stages`` and can be set on the command line by name. ``ConfigDict`` stops in
``resolve``.
"""

from urt_jax.config.parts import (
    DataConfig,
    LengthConfig,
    LoraConfig,
    ModelSettings,
    PixelsConfig,
    PoolConfig,
    RowLengthConfig,
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
from urt_jax.data.curriculum import Curriculum
from urt_jax.generation.sampling import RolloutSampling
from urt_jax.rewards.weights import RewardFunction, RewardWeights
from urt_jax.sharding.axes import MeshAxes
from urt_jax.teacher.settings import TeacherSettings
from urt_jax.training.settings import OptimizerSettings

__all__ = [
    "STAGES",
    "AblationConfig",
    "AttainedConfig",
    "BaseConfig",
    "BenchConfig",
    "Curriculum",
    "DataConfig",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GrpoConfig",
    "LengthConfig",
    "LoraConfig",
    "MeshAxes",
    "ModelSettings",
    "OptimizerSettings",
    "PeersConfig",
    "PipelineConfig",
    "PixelsConfig",
    "PlanConfig",
    "PlanRowsConfig",
    "PoolConfig",
    "RejectConfig",
    "RewardFunction",
    "RewardWeights",
    "RolloutSampling",
    "RowLengthConfig",
    "SettingConfig",
    "SftConfig",
    "ShapeConfig",
    "StageConfig",
    "StudyConfig",
    "SupervisedConfig",
    "TeacherSettings",
    "TrainingConfig",
    "as_json",
    "resolve",
    "with_defaults",
]
