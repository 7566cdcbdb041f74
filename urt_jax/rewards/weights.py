"""The settings of rewards: how much each part counts in the sum, and which rewards of a user's own are added."""

from dataclasses import dataclass

from urt_jax.settings import Problems, knob


@dataclass(frozen=True)
class RewardFunction:
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
    consistency: float = knob(0.0, at_least=0)  # totals are sums of the scores, and the answer follows
    # The verdict in the other order is the mirrored one; 0 = orders are not paired.
    swap_consistency: float = knob(0.0, at_least=0)
    # Penalty near the longest response allowed, down to -1 there (arXiv 2503.14476); 0 = not counted.
    overlong: float = knob(0.0, at_least=0)
    overlong_cache: int = knob(32, at_least=1)  # tokens before that length over which the penalty grows
    # From 0.5 for the shortest to -0.5 for the longest response of a group that is all right; 0 = not counted.
    brevity: float = knob(0.0, at_least=0)
    user: tuple[RewardFunction, ...] = ()  # rewards of your own, added to the sum

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
