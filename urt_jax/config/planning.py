"""The settings of the stages that look at machines: ``bench`` and ``plan``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from urt_jax.config.parts import StageConfig
from urt_jax.settings import Problems, knob
from urt_jax.sharding.axes import MeshAxes


@dataclass(frozen=True)
class PlanRowsConfig:
    """The rows of a step; every prompt shows square pictures and every response runs to its limit."""

    questions: int | None = knob(None, at_least=1)  # of a GRPO step; None = one a chip
    responses: int = knob(8, at_least=2)  # to each of them
    prompt_tokens: int = knob(8192, at_least=16)  # pictures included
    new_tokens: int = knob(4096, at_least=1)  # of one response
    pictures: int = knob(2, at_least=1)  # in a prompt
    picture_side: int = knob(384, at_least=28)  # in pixels
    sft_rows: int | None = knob(None, at_least=1)  # of an SFT step, each a prompt and a response; None = one a chip


@dataclass(frozen=True)
class AttainedConfig:
    """Which fraction of a chip's published rates is counted on; an assumption."""

    flops: float = knob(0.7, above=0, at_most=1)  # of matrix products, as a share of the published rate
    bandwidth: float = knob(0.8, above=0, at_most=1)  # of memory, as a share of the published rate
    links: float = knob(0.8, above=0, at_most=1)  # between chips, as a share of the published rate


@dataclass(frozen=True)
class PeersConfig:
    """Programs of others that do the same work; timed on a CPU only, in float32."""

    python: str | None = None  # interpreter of an environment with torch, transformers and trl; None = no peers
    folder: str = "tests/peers"  # their scripts
    compiled: bool = True  # transformers under torch.compile too, which takes a minute to warm up


@dataclass(frozen=True)
class BenchConfig(StageConfig):
    """Time sampler, SFT step and GRPO step on random weights against the machine's limits and against peers."""

    stage: ClassVar[str] = "bench"

    # Sizes of the timed model: "tiny" is urt-tiny, "3b" and "7b" are Qwen2.5-VL.
    sizes: tuple[Literal["toy", "tiny", "small", "3b", "7b"], ...] = knob(("tiny", "small"), nonempty=True)
    # What is timed; "prefix": gradients of GRPO with and without a shared prompt, "input": reading of records,
    # "verdict": a fresh process's first verdict of the shipped judge, whatever the size.
    cases: tuple[Literal["sampler", "sft", "grpo", "prefix", "input", "verdict"], ...] = knob(
        ("sampler", "sft", "grpo", "input"), nonempty=True
    )
    repetitions: int = knob(3, at_least=1)  # of each program, after one that compiles; medians are reported
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; trained weights are float32
    remat: Literal["none", "full", "dots"] = "none"  # what the backward pass recomputes to save memory
    mesh: MeshAxes = MeshAxes()
    peers: PeersConfig = PeersConfig()


@dataclass(frozen=True)
class PlanConfig(StageConfig):
    """What fits on which accelerators, and how fast: by formula, and by compiling the stages' programs for them."""

    stage: ClassVar[str] = "plan"

    cases: tuple[str, ...] = knob(("qwen2_5_vl_7b@v5p:4x4x4",), nonempty=True)  # published size @ chip:shape of a slice
    # Programs that are planned; "sft" is a step of that stage, the others make up a GRPO step.
    programs: tuple[Literal["prefill", "decode", "score", "grpo", "sft"], ...] = knob(
        ("prefill", "decode", "score", "grpo"), nonempty=True
    )
    rows: PlanRowsConfig = PlanRowsConfig()
    kl: bool = True  # a reference policy is kept on the chips and scored
    attained: AttainedConfig = AttainedConfig()
    price: float | None = knob(None, above=0)  # of one chip for an hour, in any currency; for the cost of 1,000 steps
    compile: bool = True  # False: formulas alone
    worst: bool = False  # only the program of each layout that needs most memory by formula is compiled
    best: int = knob(2, at_least=1)  # layouts of a case that are compiled, the fastest by formula
    cache: str = "~/.cache/urt_jax/plans"  # folder of the compilers' cached answers
    attention: Literal["auto", "whole", "blocks"] = "auto"  # score matrices ("xla"), or the chip's kernel in blocks
    sequence: tuple[int, ...] = knob((1,), nonempty=True)  # sizes of the mesh's sequence axis that are searched
    check: bool = False  # time an SFT step on this machine too, and tell how far the formulas are off
    scaling: bool = False  # each case is the smallest slice of a weak-scaling study, up to 128 times its chips

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if "score" in self.programs and not self.kl:
            yield "programs", "has 'score', which is the reference's, but kl is False; leave it out or set kl"
        if min(self.sequence) < 1:
            yield "sequence", f"is {self.sequence}; the sizes of an axis are 1 or more"
