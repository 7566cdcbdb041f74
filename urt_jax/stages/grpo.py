"""GRPO: sample groups of reasonings, reward format and accuracy, and improve the policy (arXiv 2402.03300).

1. judge held-out pairs with the start model;
2. each step: a rollout (R responses to each of Q questions, see ``feeds.rollouts``), group advantages, an update;
3. stop the run if the log-probabilities of sampler and trainer differ by more than ``agreement_band``;
4. judge the held-out pairs again, print both tables and write the report.
"""

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urt_jax.checkpoints.model_folder import LoadedModel
from urt_jax.config import GrpoConfig
from urt_jax.data.collate import collate_prompts
from urt_jax.data.examples import Example
from urt_jax.evals.judging import HeldOut, judge_held_out
from urt_jax.feeds.records import labelled_pool, skipped_figures, tell_skipped
from urt_jax.feeds.rollouts import RolloutMaker, StepRollout, open_feed, open_scoring
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.vocabulary import make_vocabulary
from urt_jax.judge.reward_model import RewardModel
from urt_jax.models.lora import without_adapters
from urt_jax.models.vlm import run as run_model
from urt_jax.runs import processes
from urt_jax.runs.run_folder import write_result
from urt_jax.sharding.placement import place_rows, place_state
from urt_jax.sharding.shares import share_of
from urt_jax.stages.grpo_report import write_run_report, write_samples
from urt_jax.stages.policy import open_mesh, open_model, open_module, open_optimizer, save_policy, start_state
from urt_jax.training.compile import compile_grpo_step, compile_score_step
from urt_jax.training.loop import train
from urt_jax.training.rollout import advantages_of, make_grpo_batch, rows_to_train
from urt_jax.training.skipped import TrainedBatch
from urt_jax.training.state import Params, TrainState
from urt_jax.training.steps import GrpoBatch
from urt_jax.types import Rollout

WIDTHS = 4  # widths to which responses are cut: quarters of the longest allowed, each with its own program


class DisagreementError(RuntimeError):
    """The log-probabilities of sampler and trainer differ by more than ``agreement_band``."""


def run(config: GrpoConfig) -> None:
    """Train, judge before and after, write ``model/`` and the result."""
    folder = Path(config.workdir)
    open_scoring(config)  # opened here, like the data below, so that missing files are reported before judging
    loaded = open_model(config.model, config.pixels, seed=config.seed, mesh=open_mesh(config.mesh))
    feed = open_feed(config, loaded.processor)
    held_out = labelled_pool(config.held_out, seed=config.seed)
    skipped = [feed.skipped, held_out.skipped]
    before = judged(config, folder, loaded, held_out.examples, "before")
    told = tell_skipped(skipped)
    trained = train_policy(config, folder, loaded)
    after = judged(config, folder, trained, held_out.examples, "after")
    summaries = {"before GRPO": before.summaries, "after GRPO": after.summaries}
    report = processes.of_first(lambda: write_run_report(config, folder, feed, summaries))
    table = "\n".join(
        filter(None, (before.text, after.text, told, f"model in {folder / 'model'}", f"report: {report}"))
    )
    print(table)
    write_result(folder, table, before=before.figures, after=after.figures, skipped=skipped_figures(skipped))


def judged(config: GrpoConfig, folder: Path, loaded: LoadedModel, examples: Sequence[Example], when: str) -> HeldOut:
    """Judge the held-out pairs with a model, by the settings of the run."""
    model = RewardModel(
        loaded,
        dtype=config.model.dtype,
        attention=config.model.attention,
        max_prompt_tokens=config.lengths.max_prompt_tokens,
        prompt_template=config.held_out.template,
        workers=config.workers,
    )
    longest = config.lengths.max_new_tokens
    with closing(model):
        return judge_held_out(model, examples, folder, when=when, seed=config.seed, max_new_tokens=longest)


def train_policy(config: GrpoConfig, folder: Path, loaded: LoadedModel) -> LoadedModel:
    """Run all updates in ``folder``, or resume there, write ``folder/model`` and return the trained model."""
    trainer = GrpoTrainer(config, folder, loaded)
    shown = ("reward", "rewards/accuracy/mean")
    trainer.compile_ahead()
    with closing(trainer.rollouts.feed):
        state = train(
            folder,
            trainer.start,
            trainer.advance,
            config,
            title="grpo",
            shown=shown,
            carried=trainer.rollouts,
        )
    return save_policy(config, folder, loaded, state)


class GrpoTrainer:
    """Holds the compiled programs of a run; ``advance`` takes one step.

    A step is a function of the train state, its number and the values that ``rollouts`` carries from step to step.
    """

    def __init__(self, config: GrpoConfig, folder: Path, loaded: LoadedModel) -> None:
        self.config, self.folder = config, folder
        self.processor = loaded.processor
        self.mesh = open_mesh(config.mesh)
        self.share = share_of(self.mesh)
        model = open_module(config.model, loaded, self.mesh)
        optimizer, schedule = open_optimizer(config.optimizer, updates=config.steps * config.updates_per_rollout)
        self.start = start_state(config, loaded, optimizer, self.mesh)
        # A copy, because the first step donates the loaded arrays. With adapters the base stays frozen: no copy.
        copied = config.kl_coef and not config.model.lora.rank
        self.reference = jax.tree.map(jnp.copy, place_state(self.mesh, loaded.params)) if copied else None
        self.rates = np.asarray(schedule(np.arange(config.steps) * config.updates_per_rollout))
        self.first, self.later = (
            compile_grpo_step(
                model,
                optimizer,
                self.start,
                self.mesh,
                config,
                first_update=first,
                max_tokens=config.lengths.max_new_tokens,
                micro_batches=config.micro_batches,
            )
            for first in (True, False)
        )
        self.score = compile_score_step(model, self.mesh, micro_batches=config.micro_batches)
        self.sampler = Sampler(model, self.processor)
        # The update reuses the sampler's features if the tower is frozen; replaced groups are collated from pictures.
        self.encoded = not ("vision" in self.start.trainable or self.share.spans or config.dynamic_sampling)
        self.suppressed = make_vocabulary(self.processor).suppressed_V
        self.rollouts = RolloutMaker(config, self.sampler, self.mesh)
        self.group_sizes, self.widths = self._group_sizes(), _widths(config)

    def compile_ahead(self) -> None:
        """Compile the sampler and the largest update in parallel, before the first step."""
        with ThreadPoolExecutor(2) as pool:
            update = pool.submit(self._compile_update)
            self.rollouts.compile_ahead(self.start.params)
            update.result()

    def _compile_update(self) -> None:
        config, bucket, model = self.config, self.rollouts.feed.expected[-1], self.sampler.model
        rows, slots = bucket.rows * config.responses_per_question, config.lengths.max_new_tokens
        prompts = collate_prompts([], bucket=bucket, **self.sampler.padding)
        features = jax.eval_shape(partial(run_model, model, method="features"), self.start.params, prompts.vision)
        blank = Rollout(
            prompts,
            next_position_Q=np.zeros(bucket.rows, np.int32),
            tokens_BU=np.zeros((rows, slots), np.int32),
            mask_BU=np.ones((rows, slots), bool),
            logp_BU=np.zeros((rows, slots), np.float32),
            ended_B=np.ones(rows, bool),
            texts=("",) * rows,
            features=jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), features),
        )
        blank = blank.encoded() if self.encoded else blank
        batch = make_grpo_batch(blank, np.zeros(rows, np.float32), temperature=config.sampling.temperature)
        self.first.lower(self.start, place_rows(self.mesh, batch), self.suppressed).compile()

    def reference_params(self, state: TrainState) -> Params:
        """Return the parameters of the start policy; with adapters, the frozen base parameters."""
        return without_adapters(state.params) if self.reference is None else self.reference

    def advance(self, state: TrainState, step: int) -> tuple[TrainState, dict[str, Any], TrainedBatch]:
        """Take one step: sample, reward, update; return the next state, the step's figures and its batch."""
        config = self.config
        made = self.rollouts.make(state.params, step)
        started = time.perf_counter()
        advantage_B = advantages_of(made.rollout, self.rollouts.weights, scale=config.advantage_scale)
        batch = place_rows(self.mesh, self._batch(made, advantage_B, step))
        if config.kl_coef:
            scores = self.score(self.reference_params(state), batch.rows, batch.temperature, self.suppressed)
            batch = batch._replace(ref_logp_BU=scores.logp_BU)
        if config.updates_per_rollout > 1:
            scores = self.score(state.params, batch.rows, batch.temperature, self.suppressed)
            batch = batch._replace(old_logp_BU=scores.logp_BU)
        state, figures = self.first(state, batch, self.suppressed)
        self._check_agreement(step, figures)
        skipped = figures["skipped_updates"]
        for _ in range(config.updates_per_rollout - 1):
            state, figures = self.later(state, batch, self.suppressed)
            skipped += figures["skipped_updates"]
        if (step + 1) % config.sample_every == 0 or step + 1 in (1, config.steps):
            processes.of_first(lambda: write_samples(self.folder, step, made, self.rollouts.weights))
        figures = {
            **made.figures,
            **figures,
            "skipped_updates": skipped,
            "learning_rate": self.rates[step],
            "timing_s/update": time.perf_counter() - started,
        }
        return state, figures, TrainedBatch([question.stream for question in made.questions], batch)

    def _batch(self, made: StepRollout, advantage_B: np.ndarray, step: int) -> GrpoBatch:
        """Return the update's batch on the host; on several processes, this process's share of its groups."""
        config, responses = self.config, self.config.responses_per_question
        trained = rows_to_train(advantage_B, responses=responses, sizes=self.group_sizes)
        settings: dict[str, Any] = {
            "temperature": config.sampling.temperature,
            "in_loss_B": made.rollout.ended_B if config.mask_truncated else None,
            "widths": self.widths,
        }
        prompts = None
        if self.share.spans and len(trained) < len(advantage_B):  # groups may move to another process
            groups = trained[::responses] // responses
            questions, lengths = [made.questions[q] for q in groups], [made.lengths[q] for q in groups]
            prompts = self.rollouts.prompts_of(questions, lengths, step)
        rollout = made.rollout.encoded() if self.encoded else made.rollout
        return make_grpo_batch(rollout, advantage_B, share=self.share, trained=trained, prompts=prompts, **settings)

    def _group_sizes(self) -> tuple[int, ...]:
        """Return the allowed numbers of groups in an update: all; half too if advantage 0 means no gradient."""
        config, all_groups = self.config, self.config.questions_per_step
        splits = self.mesh.shape["data"] * self.mesh.shape["fsdp"] * (config.micro_batches or 1)
        halves = all_groups % (2 * splits) == 0
        needed = config.kl_coef or config.entropy_coef  # each gives every group a gradient
        return (all_groups // 2, all_groups) if halves and not needed else (all_groups,)

    def _check_agreement(self, step: int, figures: Mapping[str, Any]) -> None:
        difference = float(figures["sampling/sampling_logp_difference/mean"])
        counted = math.isnan(difference) and float(figures["skipped_updates"])  # the loop handles skipped updates
        if not counted and not difference <= self.config.agreement_band:
            raise DisagreementError(
                f"step {step + 1}: sampler and trainer log-probabilities differ by {difference:.4f} per token on "
                f"average, agreement_band is {self.config.agreement_band}. The update would be for another "
                "distribution than the sampled one: check dtype and kernels (float32 agrees to 1e-4), or raise "
                "agreement_band if the difference is intended"
            )


def _widths(config: GrpoConfig) -> list[int]:
    """Return the widths to which responses may be cut: quarters of the longest, in steps that the mesh divides."""
    longest, step = config.lengths.max_new_tokens, max(config.token_step, config.mesh.sequence)
    return [min(-(-longest * part // (WIDTHS * step)) * step, longest) for part in range(1, WIDTHS + 1)]
