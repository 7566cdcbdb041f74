"""The settings of rewards: the weight of each part in the sum, and a user's own rewards."""

from dataclasses import dataclass

from urt_jax.settings import Problems, knob


@dataclass(frozen=True)
class RewardFunction:
    """A user's own reward: a function of ``(*, text, solution, example)`` that returns a number or None."""

    function: str = ""  # "package.module:function"; the part has the function's name
    weight: float = 1.0  # in the sum; 0 = logged only

    @property
    def name(self) -> str:
        """The name of the part in metrics and samples."""
        return self.function.rpartition(":")[2]


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the reward parts in the sum; 0 = logged only."""

    format: float = knob(1.0, at_least=0)  # reasoning and answer have the strict format
    accuracy: float = knob(1.0, at_least=0)  # the answer equals the label
    consistency: float = knob(0.0, at_least=0)  # totals are the sums of the scores, and the answer follows from them
    # The verdict in the other presentation order is the mirrored one; 0 = orders are not paired.
    swap_consistency: float = knob(0.0, at_least=0)
    # Penalty near the longest response allowed, down to -1 at that length (arXiv 2503.14476); 0 = off.
    overlong: float = knob(0.0, at_least=0)
    overlong_cache: int = knob(32, at_least=1)  # tokens before that length over which the penalty grows
    # From 0.5 for the shortest to -0.5 for the longest response of a group whose answers are all right; 0 = off.
    brevity: float = knob(0.0, at_least=0)
    user: tuple[RewardFunction, ...] = ()  # your own rewards, added to the sum

    def parts(self) -> dict[str, float]:
        """Return the weight of every part of a run, by name."""
        parts = {"format": self.format, "accuracy": self.accuracy, "consistency": self.consistency}
        extra = {
            "swap_consistency": self.swap_consistency,
            "overlong": self.overlong,
            "brevity": self.brevity,
        }
        parts |= {name: weight for name, weight in extra.items() if weight}
        return parts | {reward.name: reward.weight for reward in self.user}

    def problems(self) -> Problems:
        """Yield the knobs that are invalid or in conflict, each with its message."""
        if not any(self.parts().values()):
            yield "format", "every reward has weight 0, so training would have no effect; give one a weight above 0"
        taken = {"format", "accuracy", "consistency", "swap_consistency", "overlong", "brevity"}
        for number, reward in enumerate(self.user):
            key = f"user[{number}].function"
            module, _, name = reward.function.partition(":")
            if not module or not name.isidentifier():
                yield key, f"{reward.function!r} names no function; give module:function, such as my_rewards:clarity"
            elif name in taken:
                yield key, f"the name {name!r} is taken by another reward; give the function another name"
            taken.add(name)
