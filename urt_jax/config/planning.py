"""The settings of the stages that measure or plan for machines: ``bench`` and ``plan``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from urt_jax.config.parts import StageConfig
from urt_jax.settings import Problems, knob
from urt_jax.sharding.axes import MeshAxes


@dataclass(frozen=True)
class PlanRowsConfig:
    """The rows of a step; every prompt has square pictures and every response reaches its token limit."""

    questions: int | None = knob(None, at_least=1)  # of a GRPO step; None = one per chip
    responses: int = knob(8, at_least=2)  # to each question
    prompt_tokens: int = knob(8192, at_least=16)  # pictures included
    new_tokens: int = knob(4096, at_least=1)  # of one response
    pictures: int = knob(2, at_least=1)  # of a prompt
    picture_side: int = knob(384, at_least=28)  # in pixels
    sft_rows: int | None = knob(None, at_least=1)  # of an SFT step, each a prompt and a response; None = one per chip


@dataclass(frozen=True)
class AttainedConfig:
    """The assumed fraction of a chip's published rates that programs attain."""

    flops: float = knob(0.7, above=0, at_most=1)  # of matrix products, as a share of the published rate
    bandwidth: float = knob(0.8, above=0, at_most=1)  # of memory, as a share of the published rate
    links: float = knob(0.8, above=0, at_most=1)  # between chips, as a share of the published rate


@dataclass(frozen=True)
class PeersConfig:
    """Peers: programs of other projects that do the same work; they are timed on a CPU only, in float32."""

    python: str | None = None  # interpreter of an environment with torch, transformers and trl; None = no peers
    folder: str = "tests/peers"  # their scripts
    compiled: bool = True  # time transformers under torch.compile too, which takes a minute to warm up


@dataclass(frozen=True)
class BenchConfig(StageConfig):
    """Time sampler, SFT step and GRPO step on random weights against the machine's limits and against peers."""

    stage: ClassVar[str] = "bench"

    # Sizes of the timed model: "tiny" is urt-tiny, "3b" and "7b" are Qwen2.5-VL.
    sizes: tuple[Literal["toy", "tiny", "small", "3b", "7b"], ...] = knob(("tiny", "small"), nonempty=True)
    # Timed programs; "prefix": GRPO gradients with and without a shared prompt, "input": reading of records,
    # "verdict": the shipped judge's first verdict in a new process, whatever the size.
    cases: tuple[Literal["sampler", "sft", "grpo", "prefix", "input", "verdict"], ...] = knob(
        ("sampler", "sft", "grpo", "input"), nonempty=True
    )
    repetitions: int = knob(3, at_least=1)  # timed runs of each program, after one that compiles; medians are reported
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; trained weights are float32
    remat: Literal["none", "full", "dots"] = "none"  # values that the backward pass recomputes to save memory
    mesh: MeshAxes = MeshAxes()
    peers: PeersConfig = PeersConfig()


@dataclass(frozen=True)
class PlanConfig(StageConfig):
    """Plan what fits on which accelerators and how fast, by formula and by compiling the stages' programs for them."""

    stage: ClassVar[str] = "plan"

    cases: tuple[str, ...] = knob(("qwen2_5_vl_7b@v5p:4x4x4",), nonempty=True)  # published size @ chip:shape of a slice
    # Planned programs; "sft" is a step of that stage, the others are the parts of a GRPO step.
    programs: tuple[Literal["prefill", "decode", "score", "grpo", "sft"], ...] = knob(
        ("prefill", "decode", "score", "grpo"), nonempty=True
    )
    rows: PlanRowsConfig = PlanRowsConfig()
    kl: bool = True  # the chips hold a reference policy, which scores responses
    attained: AttainedConfig = AttainedConfig()
    price: float | None = knob(None, above=0)  # of one chip per hour, in any currency; for the cost of 1,000 steps
    compile: bool = True  # False: formulas only
    worst: bool = False  # compile only the program of each layout that needs the most memory by formula
    best: int = knob(2, at_least=1)  # number of a case's layouts to compile, the fastest by formula
    cache: str = "~/.cache/urt_jax/plans"  # folder of the compilers' cached results
    attention: Literal["auto", "whole", "blocks"] = "auto"  # score matrices ("xla"), or the chip's kernel in blocks
    sequence: tuple[int, ...] = knob((1,), nonempty=True)  # sizes of the mesh's sequence axis to search
    check: bool = False  # time an SFT step on this machine too, and report the error of the formulas
    scaling: bool = False  # make each case the smallest slice of a weak-scaling study, up to 128 times its chips

    def problems(self) -> Problems:
        """Yield the knobs that are invalid or in conflict, each with its message."""
        if "score" in self.programs and not self.kl:
            yield "programs", "has 'score', the reference policy's program, but kl is False; leave it out or set kl"
        if min(self.sequence) < 1:
            yield "sequence", f"is {self.sequence}; the sizes of an axis are 1 or more"
