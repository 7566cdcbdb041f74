"""An SFT step in plain torch: transformers' model, its loss on the response tokens, clipped gradients, fused AdamW."""

from __future__ import annotations

import torch
from peer import prompt_inputs, random_model, random_words, read_spec, take_turns, timed


def main() -> None:
    """Take turns."""
    spec = read_spec()
    rows, model = spec["rows"], random_model(spec).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    inputs = prompt_inputs(spec, rows["sft_rows"])
    responses = random_words(spec, rows["sft_rows"], rows["new_tokens"])
    prompt = inputs["input_ids"]
    inputs["input_ids"] = torch.cat([prompt, responses], dim=1)
    inputs["labels"] = torch.cat([torch.full_like(prompt, -100), responses], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    more = torch.zeros_like(responses)
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], more], dim=1)

    def step() -> None:
        loss = model(**inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    take_turns(lambda: timed(step))


if __name__ == "__main__":
    main()
