"""From a published folder to logits: messages and pictures in, the numbers of transformers' processor and model out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from tests.families.chat_reference import CHAT_FAMILIES, ONEVISION, QWEN2_5, ChatFamily, picture_processor
from urt_jax import RewardModel

pytestmark = pytest.mark.parity

TEXT = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "head_dim": 16},
}
SECTION = {"type": "default", "rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
TOWER = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
TILE_TOWER = {"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}


def shrink(folder: Path, family: ChatFamily) -> None:
    """Make the published config.json small."""
    config = json.loads((folder / "config.json").read_text())
    text = config.setdefault("text_config", {}) if family is not QWEN2_5 else config
    if family is ONEVISION:
        text |= TEXT
        config["vision_config"] |= TILE_TOWER
        config |= {"image_grid_pinpoints": [[56, 56], [56, 112], [112, 56], [112, 112], [168, 168]]}
        settings = folder / "preprocessor_config.json"
        stored = json.loads(settings.read_text()) | {"image_grid_pinpoints": config["image_grid_pinpoints"]}
        settings.write_text(json.dumps(stored))
    else:
        text |= TEXT | {"rope_scaling": SECTION}
        deep = {"fullatt_block_indexes": [1]} if family is QWEN2_5 else {"deepstack_visual_indexes": [0, 1]}
        config["vision_config"] |= TOWER | deep
    (folder / "config.json").write_text(json.dumps(config))


def messages(pictures: int) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image"} for _ in range(pictures)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "Which picture is better, and why?"}]}]


@pytest.mark.parametrize("family", CHAT_FAMILIES, ids=lambda family: family.name)
def test_a_folder_gives_the_logits_of_transformers(family: ChatFamily, test_data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="parity with transformers needs torch 2.13.0 (CPU build)")
    family.write_folder(tmp_path, test_data / "qwen-tokenizer")
    shrink(tmp_path, family)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config._attn_implementation = "eager"
    reference = transformers.AutoModelForImageTextToText.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    template = family.chat_template(tmp_path)
    processor = picture_processor(family, tmp_path)
    reference.save_pretrained(tmp_path)
    judge = RewardModel.load(str(tmp_path))
    rng = np.random.default_rng(0)
    for sizes in ([], [(90, 130)], [(60, 200), (150, 80), (112, 112)]):
        pictures = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
        text = processor.apply_chat_template(messages(len(sizes)), chat_template=template, add_generation_prompt=True)
        images = {"images": [[Image.fromarray(picture) for picture in pictures]]} if pictures else {}
        inputs = processor(text=[text], return_tensors="pt", **images)
        with torch.no_grad():
            expected = reference(**inputs).logits[0].numpy()
        found = judge.logits(messages=messages(len(sizes)), images=pictures)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
