"""The shipped models: small enough to ship, complete, and the same model in ``transformers``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from urt_jax.checkpoints.model_folder import ASSETS, load_model
from urt_jax.judge.reward_model import RewardModel
from urt_jax.scenes import make_example

MAX_BYTES = 16_000_000
SHIPPED = sorted(path.name for path in ASSETS.glob("*") if path.is_dir())
NAMES = SHIPPED or [pytest.param("none", marks=pytest.mark.skip(reason="urt_jax/assets holds no model yet"))]


def question() -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    pair = make_example("image_gen", split="heldout", seed=1, index=0)
    picture = pair.candidates[0].source  # type: ignore[union-attr]
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"Caption: {pair.prompt}"}]}]
    return chat, [picture]


@pytest.mark.skipif(not SHIPPED, reason="urt_jax/assets holds no model yet")
def test_all_shipped_models_together_are_small() -> None:
    sizes = {str(path.relative_to(ASSETS)): path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= MAX_BYTES, sizes


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_loads_and_answers(name: str) -> None:
    loaded = load_model(name)
    assert len(loaded.processor.tokenizer) == loaded.processor.config.decoder.vocab_size
    chat, pictures = question()
    logits = RewardModel(loaded).logits(messages=chat, images=pictures)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.5, "trained weights are not flat"


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_shipped_model_is_the_same_in_transformers(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch 2.13.0 is not installed; parity with transformers is skipped")
    transformers = pytest.importorskip("transformers")
    folder = Path(ASSETS / name)
    chat, pictures = question()
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pictured = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")
    rows = int(pictured["image_grid_thw"].prod()) // 4
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * rows), return_tensors="pt")
    kinds = (ids["input_ids"] == model.config.image_token_id).int()
    with torch.no_grad():
        theirs = model(**ids, **pictured, mm_token_type_ids=kinds).logits[0].numpy()
    ours = RewardModel.load(name).logits(messages=chat, images=pictures)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
