"""The built-in task: small synthetic pictures and clips with known faults, and so with known scores."""

from urt_jax.data.examples import Example
from urt_jax.errors import BadInputError
from urt_jax.scenes.answers import make_answer_pair
from urt_jax.scenes.drills import DRILLS, make_drill
from urt_jax.scenes.edits import make_edit_pair
from urt_jax.scenes.pairs import make_generation_pair
from urt_jax.scenes.reasoning import PHRASES, direct_answer, write_reasoning
from urt_jax.scenes.scales import DIFFICULTY
from urt_jax.scenes.singles import COMPARISON_OF, make_group, make_single
from urt_jax.scenes.world import check_task
from urt_jax.tasks import TASKS

__all__ = [
    "DIFFICULTY",
    "DRILLS",
    "PHRASES",
    "direct_answer",
    "make_drill",
    "make_example",
    "make_group",
    "write_reasoning",
]


def make_example(task: str, *, split: str, seed: int, index: int, difficulty: float = DIFFICULTY) -> Example:
    """Make one record of the built-in task, the same for the same arguments; media are ``uint8`` arrays.

    It is a comparison, or of ``image_score`` and ``video_score`` one candidate with its gold scores.

    ``split`` is "train" or "heldout". ``difficulty`` is the share of hard pairs, those whose totals differ by 1 or 2.
    Half of the held-out records hold a colour-shape pair that training never shows (``meta["unseen"]``).

    Raises:
        BadInputError: unknown task or split, a negative seed or index, a difficulty outside 0 to 1.
    """
    known = check_task(task)
    if not 0 <= difficulty <= 1:
        raise BadInputError(f"difficulty is the share of hard pairs, from 0 to 1; got {difficulty}")
    if known in COMPARISON_OF:
        make = make_single
    elif TASKS[known].source:
        make = make_edit_pair
    else:
        make = make_answer_pair if TASKS[known].answers else make_generation_pair
    return make(known, split=split, seed=seed, index=index, difficulty=difficulty)
