"""Named evaluation protocols: figures are comparable only if orders, temperature, votes and unparsed agree."""

from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["greedy", "sampled", "direct", "scores"]
Unparsed = Literal["wrong", "dropped", "random"]

_MODES: dict[str, tuple[float, bool]] = {  # temperature, think
    "greedy": (0.0, True),
    "sampled": (1.0, True),
    "direct": (0.0, False),
    "scores": (0.0, False),
}


@dataclass(frozen=True)
class Protocol:
    """How a judge is prompted and how its responses count.

    ``orders``: every pair in both presentation orders, or in the record's own only. ``votes``: number of responses
    whose majority is a judgement. ``unparsed``: how a response without a valid verdict counts; "dropped" removes it
    from the denominator, "random" gives it half a point. ``think``: reasoning before the answer, or the bare answer.
    ``alone``: each candidate is scored by itself and the higher mean of its expected scores wins; orders do not matter.
    """

    name: str
    orders: Literal["both", "given"] = "both"
    temperature: float = 0.0
    votes: int = 1
    unparsed: Unparsed = "wrong"
    think: bool = True
    alone: bool = False

    def in_mode(self, mode: Mode) -> "Protocol":
        """Return this protocol with the temperature and reasoning of ``mode``; "scores" scores candidates alone."""
        temperature, think = _MODES[mode]
        return replace(self, temperature=temperature, think=think, alone=mode == "scores")

    def describe(self) -> str:
        """Return a line that describes the protocol, for tables and reports."""
        parts = [
            "each pair in both orders" if self.orders == "both" else "each pair in the given order",
            "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}",
            "one response" if self.votes == 1 else f"majority of {self.votes} responses",
            "with reasoning" if self.think else "direct answer",
            {"wrong": "unparsed = wrong", "dropped": "unparsed dropped", "random": "unparsed = half"}[self.unparsed],
        ]
        return f"{self.name}: {', '.join(parts)}"


PROTOCOLS: dict[str, Protocol] = {"urt": Protocol("urt")}
