"""How far a draw lay from another token: near where rounding made the difference, far where something else did."""

import numpy as np
import pytest

from tests.processes.recorded import BOUNDARY, Row, distance
from tests.tiny import MODEL, PROCESSOR, WORDS, batch_of, jitted, make_chat, need, tiny_params
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import Sampling

CHAT, SLOTS, SEED, STEP, RESPONSE = make_chat(1, pictures=[(2, 2)]), 12, 5, 3, 1


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(MODEL, PROCESSOR)


def sampled(sampler: Sampler, temperature: float) -> tuple[Row, np.ndarray]:
    """Return the second response to a question, and the log-probabilities of its tokens."""
    settings = {"bucket": need([CHAT]), "responses": 2, "slots": SLOTS, "seed": SEED, "step": STEP}
    found = sampler.sample(tiny_params(), [CHAT], ["one"], sampling=Sampling(temperature), **settings)
    return (found.tokens_BU[1], found.mask_BU[1], found.logp_BU[1], bool(found.ended_B[1])), found.logp_BU[1]


def distance_of(sampler: Sampler, found: Row, wanted: Row, temperature: float) -> float:
    name = (0, "one", RESPONSE, STEP, temperature, SLOTS)
    return distance(sampler, tiny_params(), CHAT, found, wanted, name, SEED)


def altered(row: Row, place: int) -> Row:
    """Return a row with another token at a place."""
    tokens = row[0].copy()
    tokens[place] = WORDS.start if tokens[place] != WORDS.start else WORDS.start + 1
    return (tokens, *row[1:])


def test_a_row_that_the_least_change_made_another_was_drawn_at_a_boundary(sampler: Sampler) -> None:
    """Between two temperatures a row changes; where exactly, a token's draw is a boundary."""
    low, high = 0.5, 1.0
    (wanted, _), (found, _) = sampled(sampler, low), sampled(sampler, high)
    assert not np.array_equal(found[0], wanted[0])
    assert distance_of(sampler, found, wanted, low) > BOUNDARY, "so far apart it is more than rounding"
    while high - low > 1e-6:
        middle = (low + high) / 2
        row, _ = sampled(sampler, middle)
        if np.array_equal(row[0], wanted[0]):
            low = middle
        else:
            found, high = row, middle
    assert distance_of(sampler, found, wanted, low) < BOUNDARY


def test_a_token_that_another_replaced_was_drawn_as_far_as_its_share_allows(sampler: Sampler) -> None:
    """A draw lies within the share of the token it drew: at most half of it away from the next."""
    row, logp_U = sampled(sampler, 0.7)
    places = np.flatnonzero(row[1])
    far = np.array([distance_of(sampler, altered(row, place), row, 0.7) for place in places])
    share = np.exp(logp_U[places])
    assert (far <= share / 2 + BOUNDARY).all(), (far, share)
    assert far.max() > 0.1, "one of them stood in the middle of a large share"


def test_of_a_greedy_token_it_is_the_gap_to_the_next(sampler: Sampler) -> None:
    row, _ = sampled(sampler, 0.0)
    logits_V = np.asarray(jitted()(tiny_params(), batch_of([CHAT])))[0, -1].astype(np.float64)
    logits_V[list(PROCESSOR.suppressed_ids)] = -np.inf
    least, most = np.sort(np.exp(logits_V - logits_V.max()) / np.exp(logits_V - logits_V.max()).sum())[-2:]
    assert distance_of(sampler, altered(row, 0), row, 0.0) == pytest.approx(most - least, abs=1e-5)
