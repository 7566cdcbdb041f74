"""Stop strings: found where the decoded text first holds one, however it is cut into tokens."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.generation.test_sampler import sample
from tests.tiny import MODEL, PROCESSOR
from urt_jax.checkpoints.model_folder import ASSETS
from urt_jax.data.tokenizer import load_tokenizer
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import Sampling
from urt_jax.generation.stops import StopTable, byte_alphabet, no_stops, stop_table, token_bytes

STOPS = ("</answer>", "r>\n", "ünd")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ASSETS / "urt-tiny")


@pytest.fixture(scope="module")
def table(tokenizer) -> StopTable:
    return stop_table(tokenizer, STOPS, vocab_size=len(tokenizer) + 3)


def first_end(table: StopTable, ids: list[int]) -> int | None:
    """Return how many tokens are read when a stop string is found."""
    state = 0
    for place, token in enumerate(ids, 1):
        state = int(table.next_SV[state, token])
        if table.found_S[state]:
            return place
    return None


def test_a_text_ends_where_its_decoded_form_first_holds_a_stop_string(tokenizer, table: StopTable) -> None:
    rng = np.random.default_rng(0)
    texts = ["<answer>Image 1 is better</answer>", "</", "answer", ">", "er>", "\n", " ü", "nd ", "</answe", "r>", "x"]
    ended = 0
    for _ in range(300):
        words = [texts[i] for i in rng.integers(len(texts), size=6)]
        ids = [token for word in words for token in tokenizer(word, add_special_tokens=False)["input_ids"]]
        decoded = [tokenizer.decode(ids[:end]) for end in range(1, len(ids) + 1)]
        wanted = next((end for end, text in enumerate(decoded, 1) if any(stop in text for stop in STOPS)), None)
        assert first_end(table, ids) == wanted, words
        ended += wanted is not None
    assert 50 < ended < 290


def test_special_tokens_and_unused_rows_leave_the_state(tokenizer, table: StopTable) -> None:
    (half,) = tokenizer("</", add_special_tokens=False)["input_ids"][-1:]
    state = int(table.next_SV[0, half])
    turn = tokenizer.convert_tokens_to_ids("<|im_start|>")
    for token in (turn, len(tokenizer), len(tokenizer) + 2):
        assert (table.next_SV[:, token] == np.arange(len(table.found_S))).all()
    assert state != 0


def test_bytes_of_tokens_are_those_of_the_text(tokenizer) -> None:
    texts = token_bytes(tokenizer)
    for text in ("Image 1 is better</answer>", "größer 漢字 🙂", "a\tb\n\n c"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(texts[token] for token in ids).decode() == text


def test_the_byte_alphabet_is_that_of_the_tokenizers() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(byte_alphabet()) == sorted(ByteLevel.alphabet())
    assert len(set(byte_alphabet())) == 256
    assert byte_alphabet()[ord(" ")] == "Ġ"


def test_without_stop_strings_nothing_ends() -> None:
    table = no_stops(7)
    assert first_end(table, [1, 2, 6]) is None
    with pytest.raises(ValueError, match="an empty one would end every text at once"):
        stop_table(None, ("a", ""), vocab_size=3)


def test_the_sampler_ends_rows_at_stop_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word 20 stands for a text that ends: every row ends with its first one, and is otherwise what it was."""
    added = {20: SimpleNamespace(special=False, content="stop")}
    monkeypatch.setattr(type(PROCESSOR.tokenizer), "added_tokens_decoder", added)
    monkeypatch.setattr(type(PROCESSOR.tokenizer), "get_vocab", lambda self: {"w20": 20}, raising=False)
    sampler = Sampler(MODEL, PROCESSOR)
    free = sample(sampler, Sampling(temperature=5.0))
    held = sample(sampler, Sampling(temperature=5.0, stop=("top",)))
    assert (free.tokens_BU == 20).any(), "the draw must hold the word"
    for row in range(len(free.tokens_BU)):
        places = np.flatnonzero(free.mask_BU[row] & (free.tokens_BU[row] == 20))
        end = places[0] + 1 if len(places) else free.mask_BU[row].sum()
        assert held.mask_BU[row].sum() == end
        np.testing.assert_array_equal(held.tokens_BU[row, :end], free.tokens_BU[row, :end])
