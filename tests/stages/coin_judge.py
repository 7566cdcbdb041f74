"""A very small judge with made weights: it always writes the same short reasoning and tosses a coin for the answer.

Half of its answers are right whatever it is shown, so rejection sampling keeps some and GRPO's groups are mixed. Each
token it writes has an embedding of its own direction, the layers add little to it, and the (untied) head answers that
direction with the token that comes next.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel, random_model, save_model
from urt_jax.config import ShapeConfig

SHAPE = ShapeConfig(
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    feed_forward=64,
    vision_width=32,
    vision_layers=2,
    vision_heads=2,
    vision_feed_forward=64,
)
WRITTEN = tuple(f"<think>\nok\n</think>\n<answer>Image {place} is better</answer>" for place in (1, 2))
LOUDNESS = 3.0  # logits of the next token are about LOUDNESS * sqrt(width) above all others


def save_coin_judge(seed_folder: Path, folder: Path, written: tuple[str, ...] = WRITTEN) -> None:
    """Write the judge with the tokenizer and layout of ``seed_folder``, whose head is untied first.

    It writes the texts of ``written`` where none of their tokens, but the number of the answer, has two successors;
    where one has, it takes either.
    """
    stored = json.loads((seed_folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    if "text_config" in stored:
        stored["text_config"]["tie_word_embeddings"] = False
    (seed_folder / "config.json").write_text(json.dumps(stored))
    loaded = random_model(str(seed_folder), seed=0)
    save_model(folder, coin_params(loaded, written), loaded.processor, loaded.folder)


def coin_params(loaded: LoadedModel, written: tuple[str, ...]) -> dict[str, Any]:
    """Return the parameters of a random model made over into the coin judge."""
    tokenizer, params = loaded.processor.tokenizer, dict(loaded.params)
    opening = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    following: dict[int, set[int]] = {}
    for text in written:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [loaded.processor.end_ids[0]]
        for token, after in zip([opening[-1], *ids], ids):
            following.setdefault(token, set()).add(after)
    rng = np.random.default_rng(0)
    rows, width = params["embedding"].shape
    embedding = rng.standard_normal((rows, width)).astype(np.float32) * 0.5
    embedding[:, : len(following)] = 0.0
    head = 0.02 * rng.standard_normal((rows, width)).astype(np.float32)
    for direction, (token, afters) in enumerate(following.items()):
        embedding[token] = 4.0 * np.eye(width, dtype=np.float32)[direction]
        for after in afters:
            head[after, direction] += LOUDNESS
    layers = params["decoder"]["layers"]
    for room, name in (("attention", "o"), ("mlp", "down")):
        layers[room][name]["kernel"] = 0.05 * layers[room][name]["kernel"]
    assert params["head"].shape == head.shape
    return {**params, "embedding": embedding, "head": head}
