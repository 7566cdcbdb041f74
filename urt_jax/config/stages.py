"""The settings of each stage."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

from urt_jax.config.parts import (
    LearnerSettings,
    LengthConfig,
    ModelSettings,
    PixelsConfig,
    RowLengths,
    ShapeConfig,
    StageConfig,
)
from urt_jax.config.planning import BenchConfig, PlanConfig
from urt_jax.config.rollouts import rollout_problems
from urt_jax.config.settings import SettingConfig, bind_setting, folder_name, settings_problems
from urt_jax.data.settings import (
    Curriculum,
    HeldOutData,
    HeldOutSource,
    MixtureData,
    PoolData,
    SourceSettings,
    TrainingData,
)
from urt_jax.generation.sampling import PoolSampling, RolloutSampling
from urt_jax.losses.policy import PolicyLoss
from urt_jax.rewards.weights import RewardWeights
from urt_jax.settings import Problems, knob
from urt_jax.sharding.axes import MeshAxes
from urt_jax.teacher.settings import TeacherSettings
from urt_jax.training.settings import LoopSettings, OptimizerSettings

LANES = 128  # tokens per block of "splash"; a copy of ops.fused_attention.LANES, whose module imports jax


@dataclass(frozen=True)
class DistillConfig(StageConfig):
    """Ask a teacher for reasonings and keep those whose answer equals the label."""

    stage: ClassVar[str] = "distill"

    data: PoolData = PoolData(count=512)
    teacher: TeacherSettings = TeacherSettings()

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        yield from _needs_count(self.data)
        if self.teacher.base_url == "builtin" and self.data.path != "scenes":
            message = "the built-in teacher answers only 'scenes'; give the address of an OpenAI-compatible endpoint"
            yield "teacher.base_url", message


@dataclass(frozen=True)
class TrainingConfig(LoopSettings, StageConfig):
    """The settings of every stage with an optimizer."""

    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    pixels: PixelsConfig = PixelsConfig()
    lengths: LengthConfig = LengthConfig()
    mesh: MeshAxes = MeshAxes()
    # Pieces of a step, whose gradients are accumulated: same update, less memory. None: 1, or the fastest on a CPU.
    micro_batches: int | None = knob(None, at_least=1)
    workers: int = knob(0, at_least=0)  # processes that decode pictures and clips ahead; 0 = in the main process

    @property
    def token_step(self) -> int:
        """The number of tokens to whose multiples rows are padded."""
        split = self.mesh.sequence if self.model.attention == "splash" else 1
        return 8 if split == 1 else split * LANES

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        if self.model.attention == "cudnn" and self.mesh.sequence > 1:
            yield (
                "model.attention",
                f"'cudnn' cannot split rows over sequence = {self.mesh.sequence} devices; give 'xla'",
            )
        if self.optimizer.warmup_steps >= self.steps:
            yield "optimizer.warmup_steps", f"{self.optimizer.warmup_steps} is not below steps {self.steps}"


@dataclass(frozen=True)
class SupervisedConfig(TrainingConfig):
    """The settings of every stage that trains on given responses by next-token cross-entropy."""

    lengths: RowLengths = RowLengths()
    batch_size: int = knob(32, at_least=1)  # records in one optimizer step

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        yield from super().problems()
        yield from _splits_rows("batch_size", self.batch_size, self.mesh, self.micro_batches)


@dataclass(frozen=True)
class SftConfig(SupervisedConfig):
    """Train on given responses by next-token cross-entropy."""

    stage: ClassVar[str] = "sft"

    model: LearnerSettings = LearnerSettings()
    data: tuple[MixtureData, ...] = knob((MixtureData(),), nonempty=True)  # one source, or a mixture by weight


@dataclass(frozen=True)
class BaseConfig(SftConfig):
    """Build a tokenizer and a small model, and train it to describe and compare: the judge before any reasoning."""

    stage: ClassVar[str] = "base"

    shape: ShapeConfig = ShapeConfig()


@dataclass(frozen=True)
class RejectConfig(SupervisedConfig):
    """Judge a pool several times, train on the correct reasonings (a short SFT), and keep the hard items for GRPO."""

    stage: ClassVar[str] = "reject"

    data: PoolData = PoolData(count=512)
    samples_per_item: int = knob(4, at_least=1)  # responses to each question
    batch_questions: int = knob(32, at_least=1)  # questions sampled in one batch
    sampling: PoolSampling = PoolSampling()

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        yield from super().problems()
        yield from _needs_count(self.data)
        if self.sampling.temperature == 0 and self.samples_per_item > 1:
            yield "sampling.temperature", f"0 is greedy: all {self.samples_per_item} samples of an item would be equal"


@dataclass(frozen=True)
class GrpoConfig(PolicyLoss, TrainingConfig):
    """Sample groups of reasonings, reward format and accuracy, and improve the policy (arXiv 2402.03300)."""

    stage: ClassVar[str] = "grpo"

    data: PoolData = PoolData()
    eval_data: HeldOutSource = HeldOutSource(count=128)  # judged before and after, with the template and frames of data
    questions_per_step: int = knob(16, at_least=1)  # questions of one rollout
    responses_per_question: int = knob(8, at_least=2)  # size of the group that advantages are relative to
    updates_per_rollout: int = knob(1, at_least=1)  # above 1, the ratio differs from 1 and is clipped
    sampling: RolloutSampling = RolloutSampling()
    mask_truncated: bool = False  # leave responses that reached the limit out of the loss; their rewards still count
    advantage_scale: Literal["group", "batch", "none"] = "group"  # whose standard deviation divides the advantages
    rewards: RewardWeights = RewardWeights()
    curriculum: Curriculum = Curriculum()
    dynamic_sampling: int = knob(0, at_least=0)  # most extra rollouts of a step, to replace groups of equal reward
    agreement_band: float = knob(0.05, above=0)  # largest mean |sampler - trainer log-probability| per token
    sample_every: int = knob(50, at_least=1)  # steps between samples written to disk

    @property
    def held_out(self) -> HeldOutData:
        """The pairs judged before and after, read with the template and frame settings of ``data``."""
        return self.eval_data.read_as(self.data)

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        yield from TrainingConfig.problems(self)
        yield from PolicyLoss.problems(self)
        yield from _splits_rows("questions_per_step", self.questions_per_step, self.mesh, self.micro_batches)
        tokens, parts = self.lengths.max_new_tokens, self.mesh.sequence
        step = parts if self.token_step == 8 else self.token_step
        if parts > 1 and tokens % step:
            message = f"{tokens} tokens cannot be split over sequence = {parts} devices; give a multiple of {step}"
            yield "lengths.max_new_tokens", message
        if self.sampling.temperature == 0:
            yield "sampling.temperature", "0 is greedy: equal responses give no gradient; give e.g. 1.0"
        questions, longest = self.questions_per_step, self.lengths.max_new_tokens
        yield from rollout_problems(self.rewards, questions=questions, swap=self.data.swap, longest=longest)


EvaluationMode = Literal["greedy", "sampled", "direct", "scores"]


@dataclass(frozen=True)
class EvaluateConfig(StageConfig):
    """Judge held-out pairs with one or several models, and write the table and the report."""

    stage: ClassVar[str] = "evaluate"

    models: dict[str, str] = knob({"urt-tiny": "urt-tiny"}, nonempty=True)  # row label -> model, as in model.path
    data: HeldOutData = HeldOutData(count=512)
    # greedy: greedy reasoning; sampled: reasoning at temperature 1; direct: only the answer, without reasoning; scores:
    # each candidate is scored alone, without reasoning, and the higher score wins.
    modes: tuple[EvaluationMode, ...] = knob(("greedy", "sampled", "direct"), nonempty=True)
    orders: Literal["both", "given"] = "both"  # both: every pair is judged twice, candidates swapped
    batch_size: int = knob(64, at_least=1)  # questions sampled in one batch
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; auto: by device
    pixels: PixelsConfig = PixelsConfig()
    lengths: LengthConfig = LengthConfig()
    mesh: MeshAxes = MeshAxes()
    workers: int = knob(0, at_least=0)  # processes that decode pictures and clips ahead; 0 = in the main process
    report_samples: int = knob(16, at_least=0)  # pairs in the report with pictures and reasoning

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        yield from _needs_count(self.data)


@dataclass(frozen=True)
class DataConfig(StageConfig):
    """Look at a source of records: a table of what it holds, and a page with some of them."""

    stage: ClassVar[str] = "data"

    data: TrainingData = TrainingData(count=256)
    model: str = "urt-tiny"  # whose tokens prompts are counted in; as in model.path
    look: int = knob(1000, at_least=0)  # first records that are decoded, for sizes, repeated media and prompt lengths
    report_samples: int = knob(16, at_least=0)  # records in the report with their pictures

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        yield from _needs_count(self.data)


@dataclass(frozen=True)
class ExportConfig(StageConfig):
    """Write a judge in transformers' layout, from any model folder, the older published layout or an adapter."""

    stage: ClassVar[str] = "export"

    model: str = "urt-tiny"  # as in model.path; an adapter is merged into its base
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"  # of the written weights; keep: no cast
    max_shard_gb: float = knob(5.0, above=0)  # largest file of weights, in 10^9 bytes


@dataclass(frozen=True)
class PipelineConfig(StageConfig):
    """Run the whole recipe from a base model; the pipeline sets each stage's input models and files."""

    stage: ClassVar[str] = "pipeline"

    base: str = "urt-tiny"  # model that the recipe starts from, as in model.path
    distill: DistillConfig = DistillConfig()
    sft: SftConfig = SftConfig()
    reject: RejectConfig = RejectConfig()
    grpo: GrpoConfig = GrpoConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def stages(self) -> tuple[StageConfig, ...]:
        """Return the stages in order, each with its own folder ``<workdir>/<n>-<stage>`` and the pipeline's seed."""
        parts = (self.distill, self.sft, self.reject, self.grpo, self.evaluate)
        return tuple(
            replace(part, workdir=str(Path(self.workdir) / f"{n}-{part.stage}"), seed=self.seed)
            for n, part in enumerate(parts, 1)
        )


@dataclass(frozen=True)
class StudyConfig(PipelineConfig):
    """Run the whole recipe once per seed and judge all runs on the same held-out pairs."""

    stage: ClassVar[str] = "study"

    seeds: tuple[int, ...] = knob((0, 1, 2), nonempty=True)  # one pipeline per seed

    def runs(self) -> tuple[PipelineConfig, ...]:
        """Return one pipeline per seed, each in its own folder ``<workdir>/seed-<n>``."""
        shared = {part.name: getattr(self, part.name) for part in fields(PipelineConfig)}
        return tuple(
            PipelineConfig(**{**shared, "workdir": str(Path(self.workdir) / f"seed-{seed}"), "seed": seed})
            for seed in self.seeds
        )


@dataclass(frozen=True)
class AblationConfig(StageConfig):
    """Run GRPO in several settings at equal compute, each once per seed, and compare all with the first."""

    stage: ClassVar[str] = "ablation"

    grpo: GrpoConfig = GrpoConfig()  # the run that all settings share; all are judged on its eval_data
    settings: tuple[SettingConfig, ...] = knob((SettingConfig(),), nonempty=True)  # rows, compared with the first
    seeds: tuple[int, ...] = knob((0, 1, 2), nonempty=True)  # one run of each setting per seed

    def problems(self) -> Problems:
        """Yield the problems of each setting, on its own and in conflict with the others."""
        for name in ("data", "eval_data"):
            yield from ((f"grpo.{name}.{key}", told) for key, told in getattr(self.grpo, name).file_problems())
        yield from settings_problems(self.grpo, self.settings)

    def runs(self) -> dict[str, tuple[GrpoConfig, ...]]:
        """Return each setting's runs by name, one per seed, each in its own folder ``<workdir>/<name>/seed-<n>``."""
        made: dict[str, tuple[GrpoConfig, ...]] = {}
        for named in self.settings:
            folder = Path(self.workdir) / folder_name(named.name)
            setting = bind_setting(self.grpo, named.changes, [])
            made[named.name] = tuple(replace(setting, workdir=str(folder / f"seed-{n}"), seed=n) for n in self.seeds)
        return made


STAGES: dict[str, type[StageConfig]] = {
    cls.stage: cls
    for cls in (
        BaseConfig,
        DistillConfig,
        SftConfig,
        RejectConfig,
        GrpoConfig,
        EvaluateConfig,
        DataConfig,
        ExportConfig,
        BenchConfig,
        PlanConfig,
        PipelineConfig,
        StudyConfig,
        AblationConfig,
    )
}


def _needs_count(data: SourceSettings) -> Problems:
    if data.path == "scenes" and data.count is None:
        yield "data.count", "'scenes' is endless; give a number of records, e.g. 512"


def _splits_rows(key: str, rows: int, mesh: MeshAxes, micro_batches: int | None) -> Problems:
    parts = mesh.data * mesh.fsdp
    if parts > 0 and rows % parts:
        yield key, f"{rows} rows cannot be split over data x fsdp = {mesh.data} x {mesh.fsdp} devices"
    elif parts > 0 and micro_batches and rows % (parts * micro_batches):
        yield (
            "micro_batches",
            f"{micro_batches} does not divide {key} {rows} over {parts} devices; give a number that does",
        )
