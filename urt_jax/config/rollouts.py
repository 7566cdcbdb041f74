"""Knobs of what a rollout asks and what its responses are rewarded for."""

from dataclasses import dataclass

from urt_jax.settings import Problems, knob


@dataclass(frozen=True)
class UserReward:
    """A reward of the user's own: a function of ``(*, text, solution, example)`` that gives a number, or None."""

    function: str = ""  # "package.module:function"; the part is called as the function
    weight: float = 1.0  # in the sum; 0 = logged only

    @property
    def name(self) -> str:
        """What the part is called in metrics and samples."""
        return self.function.rpartition(":")[2]


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the reward parts in the sum; 0 = logged only."""

    format: float = knob(1.0, at_least=0)  # strict form of reasoning and answer
    accuracy: float = knob(1.0, at_least=0)  # answer equals the label
    consistency: float = knob(0.0, at_least=0)  # totals are the sums of the scores, the answer follows from them
    swap_consistency: float = knob(0.0, at_least=0)  # mirrored verdict in the other order; 0 = orders not paired
    overlong: float = knob(0.0, at_least=0)  # down to -1 near the longest response (arXiv 2503.14476); 0 = not counted
    overlong_longest: int | None = knob(None, at_least=1)  # tokens at which it is -1; None = lengths.max_new_tokens
    overlong_cache: int = knob(32, at_least=1)  # tokens before that over which it falls from 0
    brevity: float = knob(0.0, at_least=0)  # 0.5 to -0.5, shortest to longest of a group that is all right; 0 = off
    user: tuple[UserReward, ...] = ()  # rewards of your own, added to the sum

    def parts(self) -> dict[str, float]:
        """Return the weight of every part that a run has, by name."""
        parts = {"format": self.format, "accuracy": self.accuracy, "consistency": self.consistency}
        extra = {
            "swap_consistency": self.swap_consistency,
            "overlong": self.overlong,
            "brevity": self.brevity,
        }
        parts |= {name: weight for name, weight in extra.items() if weight}
        return parts | {reward.name: reward.weight for reward in self.user}

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if not any(self.parts().values()):
            yield "format", "every reward has weight 0; nothing would be learnt"
        taken = {"format", "accuracy", "consistency", "swap_consistency", "overlong", "brevity"}
        for number, reward in enumerate(self.user):
            key = f"user[{number}].function"
            module, _, name = reward.function.partition(":")
            if not module or not name.isidentifier():
                yield key, f"{reward.function!r} names no function; give module:function, such as my_rewards:clarity"
            elif name in taken:
                yield key, f"there is a reward called {name!r} already; give the function another name"
            taken.add(name)


@dataclass(frozen=True)
class CurriculumConfig:
    """Which records of a bounded source are asked, by how often the model is right; the defaults ask all."""

    lowest: float = knob(0.0, at_least=0, at_most=1)  # share right, first the reject stage's, then of the rollouts
    highest: float = knob(1.0, at_least=0, at_most=1)  # share right; a question above it is not asked
    retire_after: int = knob(0, at_least=0)  # times in a row all right, after which a question leaves; 0 = never
    rescore_every: int = knob(0, at_least=0)  # steps after which those that left are asked once more; 0 = never

    @property
    def active(self) -> bool:
        """Whether any question can leave."""
        return bool(self.lowest > 0 or self.highest < 1 or self.retire_after)

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if self.lowest > self.highest:
            yield "lowest", f"{self.lowest} is above highest {self.highest}"
        if self.rescore_every and not self.active:
            yield "rescore_every", "is set, but no question ever leaves; give retire_after, lowest or highest too"


def rollout_problems(rewards: RewardWeights, *, questions: int, swap: bool, longest: int) -> Problems:
    """Yield where rewards clash with the questions of a step, the orders shown, or the longest response in tokens."""
    if rewards.swap_consistency and questions % 2:
        message = "is odd, but rewards.swap_consistency shows every pair in both orders in one step"
        yield "questions_per_step", f"{questions} {message}; give an even number, or the reward weight 0"
    if rewards.swap_consistency and not swap:
        yield "data.swap", "is False, but rewards.swap_consistency shows every pair in both orders; set one of them"
    limit = rewards.overlong_longest or longest
    if rewards.overlong and rewards.overlong_cache > limit:
        yield "rewards.overlong_cache", f"{rewards.overlong_cache} is above the longest response, {limit} tokens"
