"""Sizes of a vision-language decoder, the same record for every family."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a windowed vision tower and its merger (Qwen2.5-VL, arXiv 2502.13923, section 2.1).

    ``window_size`` is in pixels; ``full_attention_layers`` attend over the whole frame, the others inside windows.
    """

    depth: int
    width: int
    heads: int
    feed_forward: int
    out_width: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    channels: int = 3
    window_size: int = 112
    full_attention_layers: tuple[int, ...] = (7, 15, 23, 31)
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tokens_per_second: float = 2.0

    @property
    def patch_features(self) -> int:
        """Numbers in one patch: channels x frames x side x side."""
        return self.channels * self.temporal_patch_size * self.patch_size**2

    @property
    def window_merged(self) -> int:
        """Merged patches along one side of a window."""
        return self.window_size // self.merge_size // self.patch_size

    @property
    def window_slots(self) -> int:
        """Patch slots of one full window."""
        return (self.window_merged * self.merge_size) ** 2


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder with grouped-query attention and multimodal rotary positions.

    The decoder repeats ``layer_pattern``; today's one kind is "attention". ``layers`` counts all layers.
    """

    vocab_size: int
    width: int
    layers: int
    query_heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    mrope_section: tuple[int, ...]
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tied_head: bool = False
    layer_pattern: tuple[str, ...] = ("attention",)

    @property
    def periods(self) -> int:
        """How often the pattern repeats."""
        return self.layers // len(self.layer_pattern)


@dataclass(frozen=True)
class ModelConfig:
    """One vision-language model: tower, decoder, and the token ids that stand for pictures."""

    decoder: DecoderConfig
    vision: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
