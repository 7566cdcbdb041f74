"""The settings of every stage as frozen records; every check of a user's ``ConfigDict`` before a device is touched.

A config file names its stage (``config.stage = "grpo"``) and lists only what that experiment decides; every other knob
has its default in ``parts`` or ``stages`` and can be set on the command line by name. ``ConfigDict`` stops in
``resolve``.
"""

from urt_jax.config.parts import (
    DataConfig,
    LengthConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    PixelsConfig,
    RewardWeights,
    SamplingConfig,
    ShapeConfig,
    TaskWeights,
    TeacherConfig,
)
from urt_jax.config.resolve import as_json, resolve, with_defaults
from urt_jax.config.stages import (
    STAGES,
    BaseConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    GrpoConfig,
    PipelineConfig,
    RejectConfig,
    SftConfig,
    StageConfig,
    StudyConfig,
    TrainingConfig,
)

__all__ = [
    "STAGES",
    "BaseConfig",
    "DataConfig",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GrpoConfig",
    "LengthConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PipelineConfig",
    "PixelsConfig",
    "RejectConfig",
    "RewardWeights",
    "SamplingConfig",
    "SftConfig",
    "ShapeConfig",
    "StageConfig",
    "StudyConfig",
    "TaskWeights",
    "TeacherConfig",
    "TrainingConfig",
    "as_json",
    "resolve",
    "with_defaults",
]
