"""The settings common to all stages, and groups of knobs that several stages share."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from urt_jax.settings import Problems, knob


@dataclass(frozen=True)
class StageConfig:
    """The settings of every stage: a run folder and a seed."""

    stage: ClassVar[str]

    workdir: str = ""  # run folder; the command line's default is runs/<config file>
    seed: int = knob(0, at_least=0)  # of new weights, orders and samples; records have their own (data.seed)


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685), which are trained instead of the weights; all weights stay frozen."""

    rank: int = knob(0, at_least=0)  # inner width of an adapter; 0 = no adapters: the weights are trained
    alpha: float = knob(32.0, above=0)  # an adapter's output is scaled by alpha / rank
    targets: tuple[str, ...] = knob(  # paths of the kernels with adapters
        (r"^decoder/.*/(attention/[qkvo]|mlp/(gate|up|down))/kernel$",), nonempty=True
    )


@dataclass(frozen=True)
class ModelSettings:
    """The weights that a stage starts from, and the parameters that it trains."""

    path: str = "urt-tiny"  # a shipped model, a run folder, a Hugging Face folder, or org/name[@revision] of the hub
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; auto: by device
    trainable: tuple[str, ...] = knob((r"^(decoder/|embedding$|head$)",), nonempty=True)  # paths of trained parameters
    remat: Literal["none", "full", "dots"] = "none"  # values that the backward pass recomputes to save memory
    # Attention of whole rows in the decoder. auto: "splash" on a TPU if mesh.sequence is 1, else "xla" (any device);
    # "cudnn" is for GPUs and bfloat16.
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
    lora: LoraConfig = LoraConfig()

    def problems(self) -> Problems:
        """Yield the knobs that are invalid or in conflict, each with its message."""
        for key, patterns in (("trainable", self.trainable), ("lora.targets", self.lora.targets)):
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except (re.error, RecursionError, OverflowError) as error:
                    yield key, f"{pattern[:80]!r} is not a regular expression ({error})"
        if self.lora.rank and self.trainable != ModelSettings.trainable:
            message = f"is {self.trainable}, but with lora.rank {self.lora.rank} only adapters are trained"
            yield "trainable", f"{message}; leave it at its default and choose lora.targets, or set lora.rank to 0"


@dataclass(frozen=True)
class LearnerSettings(ModelSettings):
    """A model for supervised training, which may also start from random weights."""

    init: Literal["load", "random"] = "load"  # random: layout and tokenizer of `path`, new weights

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        yield from super().problems()
        if self.lora.rank and self.init == "random":
            yield "init", "is 'random', but adapters need weights that can be loaded again; set lora.rank to 0 or load"


@dataclass(frozen=True)
class PixelsConfig:
    """Bounds of one picture (or video frame) in pixels; None = the checkpoint's own."""

    min_pixels: int | None = knob(None, at_least=1)  # a smaller picture is enlarged; None = the checkpoint's
    max_pixels: int | None = knob(None, at_least=1)  # a larger picture is shrunk; None = the checkpoint's

    def problems(self) -> Problems:
        """Yield the knobs that are in conflict, each with its message."""
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            yield "min_pixels", f"{self.min_pixels} is above max_pixels {self.max_pixels}"


@dataclass(frozen=True)
class LengthConfig:
    """Bounds of prompts and responses in tokens."""

    max_prompt_tokens: int = knob(512, at_least=16)  # a longer prompt's pictures are shrunk; then it is an error
    max_new_tokens: int = knob(160, at_least=1)  # of a response, in the data or sampled


@dataclass(frozen=True)
class RowLengths(LengthConfig):
    """Bounds of training rows, which several records may share."""

    row_patches: int | None = knob(None, at_least=1)  # most vision patches of a row's records; None = any number


@dataclass(frozen=True)
class ShapeConfig:
    """Sizes of a new base model in the Qwen2.5-VL layout."""

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
        """Yield the knobs that are in conflict, each with its message."""
        if self.heads % self.kv_heads:
            yield "kv_heads", f"{self.kv_heads} does not divide heads {self.heads}"
        for width, heads in (("width", self.heads), ("vision_width", self.vision_heads)):
            if getattr(self, width) % (4 * heads):
                yield width, f"{getattr(self, width)} is not a multiple of 4 x {heads} heads, as rotary positions need"
