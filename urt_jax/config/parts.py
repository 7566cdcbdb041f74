"""What all stages have, and groups of knobs that several of them share."""

import os
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from urt_jax.data.examples import DEFAULT_FRAMES, MAX_FPS
from urt_jax.data.prompts import DEFAULT_TEMPLATE, find_template
from urt_jax.data.skipped import MAX_SKIPPED
from urt_jax.errors import MAX_NAME, BadInputError, unknown_choice
from urt_jax.settings import Problems, knob
from urt_jax.tasks import TASKS

FIRST_TASK = next(iter(TASKS))
BUILT_IN = ("scenes", "drills")  # data made on the fly: pairs to judge, single-skill chats to pre-train on


@dataclass(frozen=True)
class StageConfig:
    """What every stage has: a run folder and a seed."""

    stage: ClassVar[str]

    workdir: str = ""  # run folder; the command line's default is runs/<config file>
    seed: int = knob(0, at_least=0)  # of new weights, orders and samples; records have one of their own


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685) that are trained in place of the weights, which then all stay frozen."""

    rank: int = knob(0, at_least=0)  # inner width of an adapter; 0 = none: the weights themselves are trained
    alpha: float = knob(32.0, above=0)  # what an adapter adds is scaled by alpha / rank
    targets: tuple[str, ...] = knob(  # kernel paths that get one
        (r"^decoder/.*/(attention/[qkvo]|mlp/(gate|up|down))/kernel$",), nonempty=True
    )


@dataclass(frozen=True)
class ModelSettings:
    """The weights a stage starts from, and what of them it trains."""

    path: str = "urt-tiny"  # a shipped model, a run folder, a Hugging Face folder, or org/name[@revision] of the hub
    revision: str | None = None  # branch, tag or commit of a hub model; None = its main branch
    init: Literal["load", "random"] = "load"  # random: layout and tokenizer of `path`, fresh weights
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; auto: by device
    trainable: tuple[str, ...] = knob((r"^(decoder/|embedding$|head$)",), nonempty=True)  # parameter paths
    remat: Literal["none", "full", "dots"] = "none"  # what the backward pass recomputes to save memory
    # Of whole rows in the decoder. auto: "splash" on a TPU where mesh.sequence is 1, "xla" (any device) elsewhere;
    # "cudnn" is for GPUs and bfloat16.
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
    lora: LoraConfig = LoraConfig()

    def problems(self) -> Problems:
        """Yield what is wrong with the patterns, and between the knobs."""
        for key, patterns in (("trainable", self.trainable), ("lora.targets", self.lora.targets)):
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except (re.error, RecursionError, OverflowError) as error:
                    yield key, f"{pattern[:80]!r} is no regular expression ({error})"
        if self.lora.rank and self.trainable != ModelSettings.trainable:
            message = f"is {self.trainable}, but with lora.rank {self.lora.rank} adapters alone are trained"
            yield "trainable", f"{message}; leave it at its default and choose lora.targets, or set lora.rank to 0"
        if self.lora.rank and self.init == "random":
            yield "init", "is 'random': an adapter is for weights that can be loaded again; set lora.rank to 0 or load"


@dataclass(frozen=True)
class PixelsConfig:
    """Bounds of one picture (or video frame) in pixels; None = the checkpoint's own."""

    min_pixels: int | None = knob(None, at_least=1)  # a smaller picture is enlarged; None = the checkpoint's
    max_pixels: int | None = knob(None, at_least=1)  # a larger picture is shrunk; None = the checkpoint's

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            yield "min_pixels", f"{self.min_pixels} is above max_pixels {self.max_pixels}"


@dataclass(frozen=True)
class LengthConfig:
    """Bounds in tokens, and in vision patches where it says so."""

    max_prompt_tokens: int = knob(512, at_least=16)  # a longer prompt has its pictures shrunk first, then is an error
    max_new_tokens: int = knob(160, at_least=1)  # of a response, written or sampled


@dataclass(frozen=True)
class RowLengthConfig(LengthConfig):
    """Bounds where records share training rows."""

    row_patches: int | None = knob(None, at_least=1)  # patches of the records that share a training row; None = any


@dataclass(frozen=True)
class PoolConfig:
    """A pool of pairs to judge; of ``tasks``, ``split``, ``seed`` and ``difficulty`` only "scenes" reads anything."""

    path: str = "scenes"  # the built-in task, its "drills" (SFT only), or a .json / .jsonl / mixture .yaml file
    media_root: str | None = None  # where relative media paths start; None = the file's own folder
    first_label: int = knob(1, at_least=0, at_most=1)  # what a file's labels call the first candidate: 1, or 0
    max_skipped_share: float = knob(MAX_SKIPPED, at_least=0, at_most=1)  # share of unusable records a file may hold
    count: int | None = knob(None, at_least=1)  # first records used; None = the whole file (scenes: no end)
    tasks: dict[str, float] = knob({FIRST_TASK: 1.0}, nonempty=True)  # "scenes": task -> how often, beside the others
    # Of "scenes" and "drills"; heldout also pairs colours and shapes as training never does.
    split: Literal["train", "heldout"] = "train"
    seed: int = knob(0, at_least=0)  # of the records of "scenes" and "drills"
    difficulty: float = knob(0.45, at_least=0, at_most=1)  # share of pairs whose totals differ by 1 or 2
    max_frames: int | None = knob(DEFAULT_FRAMES, at_least=1)  # kept of a clip: first, last, evenly between; None = all
    fps: float | None = knob(None, above=0, at_most=MAX_FPS)  # kept frames a second, then max_frames; None = no rate
    template: str = DEFAULT_TEMPLATE  # wording of questions: "v1", "v2", a file, or a folder with one <task>.txt a task
    swap: bool = True  # training shows every pair in both orders, so position carries no information

    def drawn_tasks(self) -> dict[str, float]:
        """Return the tasks of ``scenes`` that are drawn with their weights, in the order of ``TASKS``."""
        return {name: self.tasks[name] for name in TASKS if self.tasks.get(name, 0.0) > 0}

    def problems(self) -> Problems:
        """Yield what is wrong with the weights of tasks."""
        for name, weight in self.tasks.items():
            if name not in TASKS:
                yield "tasks", unknown_choice(name[:MAX_NAME], list(TASKS))
            elif weight < 0:
                yield f"tasks.{name}", f"got {weight}, must be at least 0"
        if not self.drawn_tasks():
            yield "tasks", "no task has a positive weight; give one to a task"

    def file_problems(self) -> Problems:
        """Yield the files that are named but not there, and what is wrong with the prompt template."""
        for key, name in (("path", self.path), ("media_root", self.media_root)):
            if name is not None and name not in BUILT_IN and not os.path.exists(name):
                hint = "; give a .json, .jsonl or mixture .yaml file, 'scenes' or 'drills'" if key == "path" else ""
                yield key, f"there is no {name!r}{hint}"
        yield from self.template_problems()

    def template_problems(self) -> Problems:
        """Yield why there is no such prompt template."""
        try:
            find_template(self.template)
        except BadInputError as error:
            yield "template", str(error)


@dataclass(frozen=True)
class DataConfig(PoolConfig):
    """One source of records to learn from: pairs, or the built-in ``drills``."""

    drills: tuple[str, ...] = ()  # which of the "drills", in equal parts; empty = all
    misread: float = knob(0.0, at_least=0, at_most=1)  # "drills": chance that a word is read back wrongly in training
    wide: float = knob(0.0, at_least=0, at_most=1)  # "drills": share with more colours and shapes than pairs have
    weight: float = knob(1.0, above=0)  # share of the draws where a stage mixes several sources


@dataclass(frozen=True)
class ShapeConfig:
    """Sizes of a base model made from nothing, in the Qwen2.5-VL layout."""

    vocab_size: int = knob(768, at_least=300)  # of the tokenizer built with it
    width: int = knob(128, at_least=8)  # of the decoder, in channels
    layers: int = knob(4, at_least=1)  # of the decoder
    heads: int = knob(4, at_least=1)  # of its attention, for queries
    kv_heads: int = knob(2, at_least=1)  # of its attention, for keys and values
    feed_forward: int = knob(352, at_least=8)  # inner channels of its MLPs
    vision_width: int = knob(96, at_least=8)  # of the vision tower, in channels
    vision_layers: int = knob(2, at_least=1)  # of the vision tower
    vision_heads: int = knob(4, at_least=1)  # of its attention
    vision_feed_forward: int = knob(256, at_least=8)  # inner channels of its MLPs

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if self.heads % self.kv_heads:
            yield "kv_heads", f"{self.kv_heads} does not divide heads {self.heads}"
        for width, heads in (("width", self.heads), ("vision_width", self.vision_heads)):
            if getattr(self, width) % (4 * heads):
                yield width, f"{getattr(self, width)} is no multiple of 4 x {heads} heads, which rotary positions need"
