"""Sizes of a vision-language decoder: one record for all decoders, one for each kind of vision tower."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of every tower; ``out_width`` is the decoder's width, ``merge_size`` 2 merges 2x2 patches into one."""

    depth: int
    width: int
    heads: int
    feed_forward: int
    out_width: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    channels: int = 3
    norm_eps: float = 1e-6

    @property
    def patch_features(self) -> int:
        """Values per patch: channels x frames x side x side."""
        return self.channels * self.temporal_patch_size * self.patch_size**2

    @property
    def slot_step(self) -> int:
        """Frames of more patch slots than this are padded to a multiple of it."""
        return 16 * self.merge_size**2

    @property
    def blend_sources(self) -> int:
        """Features averaged at one token of the prompt; 0 if each token shows a single feature."""
        return 0


@dataclass(frozen=True)
class WindowedVisionConfig(VisionConfig):
    """A tower with window attention and rotary positions (Qwen2.5-VL, arXiv 2502.13923, section 2.1).

    ``window_size`` is in pixels; ``full_attention_layers`` attend over the whole frame, the others inside windows.
    """

    window_size: int = 112
    full_attention_layers: tuple[int, ...] = (7, 15, 23, 31)
    rope_theta: float = 10_000.0
    tokens_per_second: float = 2.0

    @property
    def window_merged(self) -> int:
        """Merged patches along one side of a window."""
        return self.window_size // self.merge_size // self.patch_size

    @property
    def window_slots(self) -> int:
        """Patch slots of one full window."""
        return (self.window_merged * self.merge_size) ** 2

    @property
    def slot_step(self) -> int:
        """Frames larger than a window are padded to whole windows."""
        return self.window_slots


@dataclass(frozen=True)
class DeepStackVisionConfig(VisionConfig):
    """A tower with resampled position embeddings and features of several layers (Qwen3-VL, arXiv 2511.21631).

    ``position_side`` squared learned positions are resampled to the grid of each frame; the features of the
    ``deepstack_layers`` are added to the hidden states of the decoder's first layers (DeepStack, arXiv 2406.04334).
    """

    position_side: int = 48
    deepstack_layers: tuple[int, ...] = (8, 16, 24)
    rope_theta: float = 10_000.0


@dataclass(frozen=True)
class TileVisionConfig(VisionConfig):
    """A SigLIP tower (arXiv 2303.15343) over square tiles of ``tile_size`` pixels a side.

    Its features are the output of layer ``feature_layer``; a checkpoint's later layers are kept only to be saved again.
    """

    tile_size: int = 384
    feature_layer: int = 26
    projector_bias: bool = True

    @property
    def tile_side(self) -> int:
        """Patches along one side of a tile."""
        return self.tile_size // self.patch_size

    @property
    def blend_sources(self) -> int:
        """Pictures are pooled bilinearly: four patches per token."""
        return 4

    @property
    def slot_step(self) -> int:
        """Every frame is one tile, so nothing is padded."""
        return 1


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder with grouped-query attention and multimodal rotary positions.

    The decoder repeats ``layer_pattern``; the only kind so far is "attention". ``layers`` counts all layers. Plain
    rotary positions are multimodal ones with three equal position rows.
    """

    vocab_size: int
    width: int
    layers: int
    query_heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    mrope_section: tuple[int, ...]
    mrope_interleaved: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tied_head: bool = False
    layer_pattern: tuple[str, ...] = ("attention",)

    @property
    def periods(self) -> int:
        """Number of repeats of the pattern."""
        return self.layers // len(self.layer_pattern)


@dataclass(frozen=True)
class ModelConfig:
    """One vision-language model: tower, decoder, and the token ids that stand for pictures."""

    decoder: DecoderConfig
    vision: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int | None = None
    vision_end_token_id: int | None = None
