"""Named evaluation protocols: figures compare only where orders, temperature, votes and unparsed agree."""

from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["greedy", "sampled", "direct"]
Unparsed = Literal["wrong", "dropped", "random"]

_MODES: dict[str, tuple[float, bool]] = {  # temperature, think
    "greedy": (0.0, True),
    "sampled": (1.0, True),
    "direct": (0.0, False),
}


@dataclass(frozen=True)
class Protocol:
    """What was asked of the judge and how its answers count.

    ``orders``: every pair in both presentation orders, or in the record's own only. ``votes``: responses a judgement is
    the majority of. ``unparsed``: what an answer without a valid verdict counts as; "dropped" takes it out of the
    denominator, "random" gives it half a point. ``think``: reasoning before the answer, or the bare answer.
    """

    name: str
    orders: Literal["both", "given"] = "both"
    temperature: float = 0.0
    votes: int = 1
    unparsed: Unparsed = "wrong"
    think: bool = True

    def in_mode(self, mode: Mode) -> "Protocol":
        """Return this protocol with the temperature and the kind of answer of ``mode``; everything else stays."""
        temperature, think = _MODES[mode]
        return replace(self, temperature=temperature, think=think)

    def describe(self) -> str:
        """Say the protocol in one line, for tables and reports."""
        parts = [
            "each pair in both orders" if self.orders == "both" else "each pair in the given order",
            "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}",
            "one response" if self.votes == 1 else f"majority of {self.votes} responses",
            "with reasoning" if self.think else "direct answer",
            {"wrong": "unparsed = wrong", "dropped": "unparsed dropped", "random": "unparsed = half"}[self.unparsed],
        ]
        return f"{self.name}: {', '.join(parts)}"


PROTOCOLS: dict[str, Protocol] = {"urt": Protocol("urt")}
