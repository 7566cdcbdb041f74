"""A GRPO step by TRL's ``GRPOTrainer``: one update per rollout, no KL, random rewards; pictures and words of the spec.

The tokenizer writes word ``n`` as "wn", so that a prompt has as many tokens as ours. The processor does without its
video part, which would need torchvision.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from typing import Any

import numpy as np
from datasets import Dataset
from peer import answer, peak_memory, random_model, random_words, read_spec
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)


class ImageOnly(Qwen2_5_VLProcessor):
    """The processor without its check for a video part."""

    def check_argument_for_proper_class(self, name: str, arg: Any) -> type:
        return type(arg)


class Turns(TrainerCallback):
    """Has every step but the first wait for a line, and tells its seconds; the end of the input ends training."""

    def __init__(self) -> None:
        self.rollout, self._warm = 0.0, False

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self._warm and not sys.stdin.readline():
            sys.exit(0)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        if self._warm:
            phases = {"rollout": self.rollout, "update": wall - self.rollout}
            answer(wall=wall, cpu=cpu, **phases, memory=peak_memory())
        else:
            answer(first=wall)
        self._warm = True


def make_processor(spec: dict[str, Any]) -> ImageOnly:
    """Return a processor whose vocabulary is the spec's ids."""
    model = spec["model"]
    special = {"<|endoftext|>": 0, "<|im_end|>": 1}
    names = (("vision_start", "vision_start"), ("vision_end", "vision_end"), ("image", "image_pad"))
    special |= {f"<|{name}|>": model[f"{key}_token_id"] for key, name in (*names, ("video", "video_pad"))}
    words = {f"w{n}": n for n in range(model["text_config"]["vocab_size"]) if n not in special.values()}
    tokenizer = Tokenizer(WordLevel(special | words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>", padding_side="left",
        additional_special_tokens=sorted(set(special) - {"<|endoftext|>", "<|im_end|>"}),
    )  # fmt: skip
    pictures = Qwen2VLImageProcessorPil()
    return ImageOnly(image_processor=pictures, tokenizer=fast, video_processor=None, chat_template=TEMPLATE)


def make_questions(spec: dict[str, Any]) -> Dataset:
    """Return enough random prompts for every step: the same ones again and again."""
    rows, rng = spec["rows"], np.random.default_rng(spec["seed"])
    side = rows["picture_side"]
    words = random_words(spec, rows["questions"], spec["words"]).tolist()
    pixels = rng.integers(0, 256, (rows["questions"], rows["pictures"], side, side, 3), np.uint8)
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": " ".join(f"w{n}" for n in row)}] for row in words],
            "images": [[Image.fromarray(picture) for picture in question] for question in pixels],
        }
    )


def settings(spec: dict[str, Any], folder: str) -> GRPOConfig:
    """Return one update per rollout with everything optional off."""
    rows = spec["rows"]
    return GRPOConfig(
        output_dir=folder, max_steps=10**6, per_device_train_batch_size=rows["questions"] * rows["responses"],
        num_generations=rows["responses"], gradient_accumulation_steps=1, steps_per_generation=1, num_iterations=1,
        max_completion_length=rows["new_tokens"], beta=0.0, loss_type="grpo", temperature=1.0, top_k=0, top_p=1.0,
        generation_kwargs={"suppress_tokens": spec["suppressed"]}, learning_rate=1e-5, lr_scheduler_type="constant",
        adam_beta2=0.98, weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch_fused", gradient_checkpointing=False,
        use_cpu=True, bf16=False, fp16=False, report_to=[], logging_strategy="no", save_strategy="no",
        disable_tqdm=True, dataloader_pin_memory=False, seed=spec["seed"],
    )  # fmt: skip


def main() -> None:
    """Take turns: the trainer's own loop waits in its callback."""
    spec, turns, dice = read_spec(), Turns(), random.Random(0)
    model, length = random_model(spec), spec["rows"]["new_tokens"]

    def reward(completion_ids: list[list[int]], **more: Any) -> list[float]:
        assert all(len(ids) == length for ids in completion_ids), [len(ids) for ids in completion_ids]
        return [dice.random() for _ in completion_ids]

    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model, reward, settings(spec, folder), make_questions(spec), processing_class=make_processor(spec),
            callbacks=[turns],
        )  # fmt: skip
        generate = trainer._generate_and_score_completions

        def timed_rollout(inputs: Any) -> Any:
            started = time.perf_counter()
            made = generate(inputs)
            turns.rollout = time.perf_counter() - started
            assert made["prompt_ids"].shape[1] == spec["rows"]["prompt_tokens"], made["prompt_ids"].shape
            return made

        trainer._generate_and_score_completions = timed_rollout
        trainer.train()


if __name__ == "__main__":
    main()
