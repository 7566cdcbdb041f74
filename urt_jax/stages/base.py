"""Build the base judge: a tokenizer and a small model in the Qwen2.5-VL layout, trained to see, compare and add up.

1. write ``seed/``, a model folder without weights: tokenizer, settings, and sizes from the config's shape;
2. train all parameters from random weights by SFT on single-skill drills and direct answers;
3. answer held-out drills of every kind: a later stage cannot add a skill that is missing here.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel, load_processor, random_model, write_settings
from urt_jax.config import BaseConfig, ShapeConfig
from urt_jax.data.examples import Query
from urt_jax.data.prompts import prompt_text, render
from urt_jax.data.tokenizer import build_tokenizer, load_tokenizer
from urt_jax.evals.tables import Cell, format_table
from urt_jax.families.qwen2_5_vl import DEFAULT_GEOMETRY, FAMILY
from urt_jax.feeds.records import skipped_figures, tell_skipped, training_source
from urt_jax.files.whole import write_whole
from urt_jax.judge.reward_model import RewardModel
from urt_jax.models.config import DecoderConfig, ModelConfig, WindowedVisionConfig
from urt_jax.progress import each
from urt_jax.runs import processes
from urt_jax.scenes import DRILLS, PHRASES, make_drill, make_example, write_reasoning
from urt_jax.stages.policy import open_model
from urt_jax.stages.sft import finish, train_on
from urt_jax.tasks import PAPER_TASKS
from urt_jax.tasks.wording import template_phrases

PICTURE_PIXELS = 112 * 112  # of every picture and frame; pictures of the scenes are resized to twice their side
HELD_OUT_DRILLS = 256  # of each kind
CORPUS_RECORDS = 300  # of each task and drill, enough to contain every word of the scenes


def run(config: BaseConfig) -> None:
    """Train a new judge, whose ``seed/`` is written by the first call, or (``model.init=load``) an existing one."""
    folder = Path(config.workdir)
    seed_folder = folder / "seed"
    if config.model.init == "load":
        loaded = open_model(config.model, config.pixels, seed=config.seed)
    else:
        if not processes.of_first((seed_folder / "config.json").is_file):
            processes.of_first(lambda: write_empty_model(seed_folder, config.shape))
        loaded = random_model(str(seed_folder), seed=config.seed)
    sources = [training_source(data, seed=config.seed) for data in config.data]
    skipped = [source.skipped for source in sources]
    told = tell_skipped(skipped)
    trained = train_on(config, folder, loaded, sources, batch_size=config.batch_size, title="base")
    rows = drill_rows(config, trained)
    measured = "\n".join(filter(None, (format_table(rows), told)))
    finish(folder, "base", measured, drills=rows, skipped=skipped_figures(skipped))


def drill_rows(config: BaseConfig, trained: LoadedModel) -> list[dict[str, Cell]]:
    """Return the share of held-out drills of each kind that the model answers right, by greedy decoding.

    ``unseen`` is the share of drills with a colour-shape pair that training never shows, ``seen`` that of the others.
    """
    model = RewardModel(trained, dtype=config.model.dtype, attention=config.model.attention)
    rows: list[dict[str, Cell]] = []
    for kind in each(DRILLS, title="held-out drills", unit="kind"):
        drills = [make_drill(kind, split="heldout", seed=config.seed, index=i) for i in range(HELD_OUT_DRILLS)]
        queries = [Query(drill.id, render(drill)) for drill in drills]
        texts = model.respond(queries, temperature=0.0, seed=0, max_new_tokens=config.lengths.max_new_tokens)
        right = np.array([text == drill.response for (text,), drill in zip(texts, drills)])
        unseen = np.array([drill.meta["unseen"] for drill in drills])
        parts = {"all": right, "seen": right[~unseen], "unseen": right[unseen]}
        shares: dict[str, Cell] = {name: float(part.mean()) for name, part in parts.items() if part.size}
        rows.append({"held-out drill": kind, **shares})
    return rows


def write_empty_model(
    folder: Path, shape: ShapeConfig, *, pixels: tuple[int, int] = (PICTURE_PIXELS, PICTURE_PIXELS)
) -> None:
    """Write a small judge's tokenizer, picture settings and config.json, without weights.

    ``pixels`` are the least and the most pixels to which pictures and frames are resized.
    """
    rng = np.random.default_rng(0)
    examples = [
        make_example(task, split="train", seed=0, index=index)
        for task in PAPER_TASKS
        for index in range(CORPUS_RECORDS)
    ]
    drills = [
        make_drill(kind, split="train", seed=0, index=index, wide=0.5)
        for kind in DRILLS
        for index in range(CORPUS_RECORDS)
    ]
    corpus = [text for e in examples for text in (prompt_text(e), write_reasoning(e, rng))]
    corpus += [text for drill in drills for text in (drill.text or "", drill.response or "")]
    # A phrase ends without its last space, which belongs to the next word, so that " red" is one token everywhere.
    phrases = [phrase.rstrip(" ") for phrase in (*PHRASES, *template_phrases(PAPER_TASKS))]
    build_tokenizer(corpus, phrases, vocab_size=shape.vocab_size, folder=folder)
    least, most = pixels
    geometry = replace(
        DEFAULT_GEOMETRY, min_pixels=least, max_pixels=most, video_min_pixels=least, video_max_pixels=most
    )
    write_settings(folder, FAMILY.picture_files(geometry))
    tokenizer = load_tokenizer(folder)
    names = ("image_pad", "video_pad", "vision_start", "vision_end", "endoftext", "im_end")
    ids = {name: int(tokenizer.convert_tokens_to_ids(f"<|{name}|>")) for name in names}
    model = _small_config(shape, ids, vocab_size=len(tokenizer))
    token_ids = {"pad_token_id": ids["endoftext"], "eos_token_id": ids["im_end"], "bos_token_id": ids["endoftext"]}
    # Written last and atomically: a folder with this file counts as complete.
    write_whole(folder / "config.json", json.dumps(FAMILY.write_config(model, token_ids), indent=2) + "\n")
    load_processor(str(folder))


def _small_config(shape: ShapeConfig, ids: Mapping[str, int], *, vocab_size: int) -> ModelConfig:
    """Return the model config of a small judge; ``ids`` maps its media tokens' names to ids."""
    head_width = shape.width // shape.heads
    third = head_width // 2 // 3
    return ModelConfig(
        decoder=DecoderConfig(
            vocab_size=vocab_size,
            width=shape.width,
            layers=shape.layers,
            query_heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_width=head_width,
            feed_forward=shape.feed_forward,
            mrope_section=(head_width // 2 - 2 * third, third, third),
            rope_theta=10_000.0,
            tied_head=True,
        ),
        vision=WindowedVisionConfig(
            depth=shape.vision_layers,
            width=shape.vision_width,
            heads=shape.vision_heads,
            feed_forward=shape.vision_feed_forward,
            out_width=shape.width,
            window_size=112,
            full_attention_layers=(shape.vision_layers - 1,),
        ),
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
