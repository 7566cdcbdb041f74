"""A rollout by transformers' ``generate``: Q prompts, R sampled responses each, KV cache; eager, or compiled.

transformers runs a prompt once for every response (``num_return_sequences``). Compiled: a static cache and the
decode step under ``torch.compile``, as transformers itself does on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from peer import prompt_inputs, random_model, read_spec, take_turns, timed
from transformers import CompileConfig, GenerationConfig


def settings(spec: dict[str, Any]) -> GenerationConfig:
    """Return plain sampling without an end: no filters, special ids suppressed."""
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True, pad_token_id=spec["suppressed"][0],
        num_return_sequences=spec["rows"]["responses"], suppress_tokens=spec["suppressed"],
    )  # fmt: skip
    if spec["compiled"]:
        config.cache_implementation = "static"
        config.compile_config = CompileConfig(mode="default", fullgraph=False)
        config.compile_config._compile_all_devices = True  # transformers compiles on accelerators only
    return config


def main() -> None:
    """Take turns."""
    spec = read_spec()
    model, config = random_model(spec).eval(), settings(spec)
    model.generation_config = config
    inputs = prompt_inputs(spec, spec["rows"]["questions"])
    length, prompt = spec["rows"]["new_tokens"], inputs["input_ids"].shape[1]

    def sample(tokens: int) -> None:
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=tokens)
        assert out.shape[1] == prompt + tokens, (out.shape, prompt, tokens)

    def repeat() -> dict[str, float]:
        one = timed(lambda: sample(1))
        whole = timed(lambda: sample(length))
        return {**whole, "prefill": one["wall"], "decode": whole["wall"] - one["wall"]}

    take_turns(repeat)


if __name__ == "__main__":
    main()
