"""GRPO: sample groups of reasonings per question, reward form and correctness, improve the policy (arXiv 2402.03300).

1. judge held-out pairs with the model it starts from;
2. each step: Q questions, R responses each from one prompt cache per question, rewards, group advantages, update;
3. a gate stops the run when sampler and trainer stop agreeing on log-probabilities;
4. judge the held-out pairs again and print both.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.checkpoints.run_folder import write_result
from urt_jax.config import GrpoConfig
from urt_jax.data.collate import Buckets, length_of, need_of, plan_buckets
from urt_jax.data.examples import Example
from urt_jax.data.loader import mix
from urt_jax.generation.sampler import Sampler, Sampling, make_vocabulary
from urt_jax.models.lora import without_adapters
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.stages.judging import held_out_table
from urt_jax.stages.policy import save_policy, start_state
from urt_jax.stages.records import Encoder, question_source
from urt_jax.stages.sft import compute_dtype, open_mesh, open_model, open_optimizer
from urt_jax.training.compile import compile_grpo_step, compile_score_step
from urt_jax.training.loop import LoopSettings, train
from urt_jax.training.rollout import advantages_of, make_grpo_batch, make_rollout, rollout_figures, rows_to_train
from urt_jax.training.state import Params, TrainState
from urt_jax.training.steps import PolicyLoss
from urt_jax.types import EncodedChat


class DisagreementError(RuntimeError):
    """Sampler and trainer no longer compute the same log-probabilities."""


def run(config: GrpoConfig) -> None:
    """Train, judge before and after, write ``model/`` and the result."""
    folder = Path(config.workdir)
    loaded = open_model(config.model, config.pixels, seed=config.seed, mesh=open_mesh(config.mesh))
    before = held_out_table(config, folder, loaded, "before")
    trained = train_policy(config, folder, loaded)
    after = held_out_table(config, folder, trained, "after")
    table = f"{before.text}\n{after.text}\nmodel in {folder / 'model'}"
    print(table)
    write_result(folder, table, before=before.figures, after=after.figures)


def train_policy(config: GrpoConfig, folder: Path, loaded: LoadedModel) -> LoadedModel:
    """Run all updates in ``folder`` (resuming there), write ``folder/model`` and return the trained model."""
    trainer = GrpoTrainer(config, folder, loaded)
    settings = LoopSettings(
        config.steps, config.save_every, config.keep, config.log_every, ("reward", "rewards/accuracy/mean")
    )
    state = train(folder, trainer.start, trainer.advance, settings, title="grpo")
    return save_policy(config, folder, loaded, state)


class GrpoTrainer:
    """Owns the compiled programs of a run; ``advance`` takes one step, a function of the state and its number."""

    def __init__(self, config: GrpoConfig, folder: Path, loaded: LoadedModel) -> None:
        self.config, self.folder = config, folder
        self.processor = loaded.processor
        self.mesh = open_mesh(config.mesh)
        model = loaded.module(dtype=compute_dtype(config.model.dtype), remat=config.model.remat)
        optimizer, schedule = open_optimizer(config.optimizer, updates=config.steps * config.updates_per_rollout)
        self.start = start_state(config, loaded, optimizer, self.mesh)
        # A copy: the state takes the loaded arrays over and its first step uses them up. Under adapters it needs none.
        copied = config.kl_coef and not config.model.lora.rank
        self.reference = jax.tree.map(jnp.copy, place_state(self.mesh, loaded.params)) if copied else None
        self.rates = np.asarray(schedule(np.arange(config.steps) * config.updates_per_rollout))
        self.weights = dataclasses.asdict(config.rewards)
        loss = PolicyLoss(config.loss, config.clip_low, config.clip_high, config.kl_coef)
        self.first, self.later = (
            compile_grpo_step(model, optimizer, self.start, self.mesh, loss, first_update=first)
            for first in (True, False)
        )
        self.slots = config.lengths.max_new_tokens
        self.score = compile_score_step(model)
        self.sampler = Sampler(model, self.processor)
        self.suppressed = make_vocabulary(self.processor).suppressed_V
        self.encoder = Encoder(
            self.processor,
            max_prompt_tokens=config.lengths.max_prompt_tokens,
            max_new_tokens=config.lengths.max_new_tokens,
        )
        source = question_source(config.data, seed=config.seed)
        self.drawn = mix([source], seed=config.seed, rows=config.steps * config.questions_per_step)
        self.buckets = self._plan_buckets()
        self.group_sizes = self._group_sizes()

    def questions(self, step: int) -> list[Example]:
        """Return the Q questions of a step."""
        first = step * self.config.questions_per_step
        return [self.drawn(first + i).example for i in range(self.config.questions_per_step)]

    def prompts(self, examples: Sequence[Example]) -> list[EncodedChat]:
        """Encode questions in the wording of the stage's data."""
        return [self.encoder.prompt(example, template=self.config.data.template) for example in examples]

    def reference_params(self, state: TrainState) -> Params:
        """Return the policy the run started with; under adapters it is what lies frozen below them."""
        return without_adapters(state.params) if self.reference is None else self.reference

    def advance(self, state: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """Sample, reward and update once; return the next state and the figures of the step."""
        config = self.config
        examples = self.questions(step)
        chats = self.prompts(examples)
        started = time.perf_counter()
        samples = self.sampler.sample(
            state.params,
            chats,
            [example.id for example in examples],
            bucket=self.buckets.fit(need_of([length_of(chat) for chat in chats], rows=len(chats))),
            responses=config.responses_per_question,
            sampling=Sampling(self.slots, config.sampling.temperature),
            slots=self.slots,
            seed=config.seed,
            step=step,
        )
        solutions = [str(example.solution) for example in examples]
        rollout = make_rollout(samples, [e.id for e in examples], solutions, policy_step=step)
        sampled = time.perf_counter()
        advantage_B = advantages_of(rollout, self.weights, scale=config.advantage_scale)
        trained = rows_to_train(advantage_B, responses=config.responses_per_question, sizes=self.group_sizes)
        batch = place_rows(
            self.mesh,
            make_grpo_batch(samples, advantage_B, temperature=config.sampling.temperature, trained=trained),
        )
        if config.kl_coef:
            scores = self.score(self.reference_params(state), batch.rows, batch.temperature, self.suppressed)
            batch = batch._replace(ref_logp_BU=scores.logp_BU)
        if config.updates_per_rollout > 1:
            scores = self.score(state.params, batch.rows, batch.temperature, self.suppressed)
            batch = batch._replace(old_logp_BU=scores.logp_BU)
        state, figures = self.first(state, batch, self.suppressed)
        self._check_agreement(step, float(figures["sampling/sampling_logp_difference/mean"]))
        for _ in range(config.updates_per_rollout - 1):
            state, figures = self.later(state, batch, self.suppressed)
        if (step + 1) % config.sample_every == 0 or step == 0:
            self._write_samples(step, examples, samples.texts, rollout.rewards)
        return state, {
            **rollout_figures(rollout, self.weights, self.processor.end_ids),
            **figures,
            "learning_rate": self.rates[step],
            "num_tokens": float(samples.mask_BU.sum()),
            "timing_s/rollout": sampled - started,
            "timing_s/update": time.perf_counter() - sampled,
        }

    def _group_sizes(self) -> tuple[int, ...]:
        """Return how many groups an update may hold: all, or half where groups without advantage have no gradient."""
        config, all_groups = self.config, self.config.questions_per_step
        splits = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        halves = all_groups % 2 == 0 and all_groups // 2 * config.responses_per_question % splits == 0
        return (all_groups // 2, all_groups) if halves and not config.kl_coef else (all_groups,)

    def _check_agreement(self, step: int, difference: float) -> None:
        if not difference <= self.config.agreement_band:
            raise DisagreementError(
                f"step {step + 1}: sampler and trainer log-probabilities differ by {difference:.4f} a token on "
                f"average, agreement_band is {self.config.agreement_band}. The update would follow another "
                "distribution than was sampled: check dtype and kernels (float32 agrees to 1e-4), or widen the "
                "band knowingly"
            )

    def _write_samples(
        self, step: int, examples: Sequence[Example], texts: Sequence[str], rewards: dict[str, np.ndarray]
    ) -> None:
        path = self.folder / "samples" / f"step-{step + 1:06d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        responses = len(texts) // len(examples)
        lines = [
            {
                "id": example.id,
                "solution": example.solution,
                "text": texts[q * responses],
                "rewards": {name: float(values[q, 0]) for name, values in rewards.items()},
            }
            for q, example in enumerate(examples)
        ]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _plan_buckets(self) -> Buckets:
        """Plan prompt shapes over every step of the run."""
        needs = []
        for step in range(self.config.steps):
            lengths = [length_of(chat) for chat in self.prompts(self.questions(step))]
            needs.append(need_of(lengths, rows=len(lengths)))
        return plan_buckets(needs, slot_step=self.processor.config.vision.slot_step)
