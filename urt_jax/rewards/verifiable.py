"""Rule-based rewards: form, answer, length, and whether the answer follows from the written scores."""

from collections.abc import Sequence

from urt_jax.tasks import Verdict, read_reply
from urt_jax.tasks.replies import read_totals

_TOLERANCE = 1e-6  # sums of decimal scores such as 7.1 are rounded


def format_reward(text: str, *, task: str | None = None) -> float:
    """Return 1 when the text parses in the strict form of its ``task`` (without one: a verdict on a pair), else 0.

    The published code differs: it allows text after the answer and rejects leading whitespace.
    """
    return float(read_reply(text, task=task).failure is None)


def accuracy_reward(text: str, solution: str) -> float:
    """Return 1 when the content of the last ``<answer>`` is exactly ``solution`` after stripping both, else 0.

    Without a closed ``<answer>`` it is 0: a bare label gets no reward (the published code rewards it).

    Raises:
        ValueError: the solution is empty, so no answer could be right.
    """
    wanted = solution.strip()
    if not wanted:
        raise ValueError("solution is empty; accuracy needs the exact answer text, such as 'Image 1 is better'")
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return float(start >= 0 and text[start + len("<answer>") : end].strip() == wanted)


def consistency_reward(text: str, *, task: str | None = None) -> float:
    """Return 1 when addends, totals and answer all follow from the dimension scores, else 0 (also without scores).

    A missing answer, or one in another task's noun, gets 0.
    """
    verdict = read_reply(text, task=task)
    if not score_agreement(verdict):
        return 0.0
    written = read_totals(verdict.reasoning)
    columns = zip(*verdict.scores.values())
    return float(all(written[place].addends == column for place, column in enumerate(columns, start=1)))


def score_agreement(verdict: Verdict) -> bool:
    """Return whether each total is the sum of its scores and the answer names the strictly larger total.

    False where scores, totals or a decided winner are missing, and for ties.
    """
    if verdict.winner not in (1, 2) or verdict.totals is None or not verdict.scores:
        return False
    columns = zip(*verdict.scores.values())
    summed = all(abs(sum(column) - total) < _TOLERANCE for column, total in zip(columns, verdict.totals))
    higher = verdict.totals[0] - verdict.totals[1]
    return summed and (higher > 0 if verdict.winner == 1 else higher < 0)


def overlong_reward(tokens: int, *, longest: int, cache: int) -> float:
    """Return the soft over-long penalty of a response of ``tokens`` tokens (DAPO, arXiv 2503.14476, eq. 13).

    It is 0 up to ``longest - cache`` tokens, falls linearly to -1 at ``longest``, and is -1 beyond.

    Raises:
        ValueError: ``cache`` is not from 1 to ``longest``.
    """
    if not 1 <= cache <= longest:
        raise ValueError(f"cache is {cache} tokens, longest is {longest}: give a cache from 1 to {longest}")
    return 0.0 - min(max(tokens - (longest - cache), 0) / cache, 1.0)


def brevity_rewards(tokens: Sequence[int], right: Sequence[bool]) -> list[float]:
    """Return a length reward for each response of a group: 0.5 for the shortest down to -0.5 for the longest.

    It is the length reward of Kimi k1.5 (arXiv 2501.12599, section 2.3.3), but only for groups whose responses are all
    right, so that length counts only once the answers are learnt. Other groups, and groups of equal lengths, get 0.
    """
    shortest, longest = min(tokens), max(tokens)
    if not all(right) or shortest == longest:
        return [0.0] * len(tokens)
    return [0.5 - (count - shortest) / (longest - shortest) for count in tokens]
