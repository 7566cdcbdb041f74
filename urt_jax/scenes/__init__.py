"""The built-in task: small synthetic pictures and clips with known faults, and so with known scores."""

from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError
from urt_jax.scenes.answers import make_answer_pair
from urt_jax.scenes.drills import DRILLS, make_drill
from urt_jax.scenes.pairs import make_generation_pair
from urt_jax.scenes.reasoning import PHRASES, direct_answer, write_reasoning
from urt_jax.scenes.scales import DIFFICULTY
from urt_jax.scenes.world import check_task
from urt_jax.tasks import TASKS

__all__ = ["DIFFICULTY", "DRILLS", "PHRASES", "direct_answer", "make_drill", "make_example", "write_reasoning"]


def make_example(task: str, *, split: str, seed: int, index: int, difficulty: float = DIFFICULTY) -> Example:
    """Make one comparison of the built-in task, the same for the same arguments; media are ``uint8`` arrays.

    ``split`` is "train" or "heldout". ``difficulty`` is the share of hard pairs, those whose totals differ by 1 or 2.
    Half of the held-out records hold a colour-shape pair that training never shows (``meta["unseen"]``).

    Raises:
        BadInputError: unknown task or split, a negative seed or index, a difficulty outside 0 to 1.
    """
    known = check_task(task)
    if not 0 <= difficulty <= 1:
        raise BadInputError(f"difficulty is the share of hard pairs, from 0 to 1; got {difficulty}")
    make = make_answer_pair if TASKS[known].answers else make_generation_pair
    return make(known, split=split, seed=seed, index=index, difficulty=difficulty)
