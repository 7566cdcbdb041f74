"""Secrets are found by value and by look, plain words are left, and no text takes long."""

import time

import pytest

from urt_jax.files.redaction import keep_address, keep_secret, known_secrets, redacted, redacted_values


def test_a_secret_that_was_given_is_found_in_every_spelling() -> None:
    keep_secret("pa ss/w+rd")
    for spelling in ("pa ss/w+rd", "pa%20ss%2Fw%2Brd", "pa+ss%2Fw%2Brd", "pa ss\\/w+rd"):
        assert redacted(f"key is <{spelling}>.") == "key is <***>."


def test_short_values_are_placeholders_not_secrets() -> None:
    keep_secret("none")
    keep_secret("EMPTY")
    keep_secret("")
    assert redacted("none is EMPTY, and nonetheless") == "none is EMPTY, and nonetheless"


def test_credentials_of_an_address_are_found_wherever_they_stand() -> None:
    keep_address("https://someone:open%2Dsesame@host/v1?token=t0ken-1&page=front-page")
    told = redacted("open-sesame, t0ken-1, c29tZW9uZTpvcGVuLXNlc2FtZQ==, someone on the front-page")
    assert told == "***, ***, ***, someone on the front-page"
    keep_address("http://[broken")


def test_the_environment_names_some(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("HF_TOKEN", "abcdefgh-1"),
        ("X_API_KEY", "abcdefgh-2"),
        ("TOKENIZERS_PARALLELISM", "abcdefgh-3"),
    ):
        monkeypatch.setenv(name, value)
    assert redacted("abcdefgh-1 abcdefgh-2 abcdefgh-3") == "*** *** abcdefgh-3"
    assert "abcdefgh-1" in known_secrets()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://user:pw@host/v1", "https://***@host/v1"),
        ("https://t0ken@host", "https://***@host"),
        ("GET http://h/p?api_key=abc&x=1 failed", "GET http://h/p?api_key=***&x=1 failed"),
        ("http://h/p?x=1&X-Amz-Signature=abc123", "http://h/p?x=1&X-Amz-Signature=***"),
        ("http://h/p?access_token=abc#part", "http://h/p?access_token=***#part"),
        ("Authorization: Bearer abcdef", "Authorization: Bearer ***"),
        ('{"authorization": "Basic dXNlcjpwdw=="}', '{"authorization": "Basic ***"}'),
        ('{"x-api-key": "abcdef-123"}', '{"x-api-key": "***"}'),
        ("sent Bearer abcd1234efgh5678 to", "sent Bearer *** to"),
        ("Incorrect API key provided: sk-proj-abc_DEF-123.", "Incorrect API key provided: sk-***."),
        ("sk-abcdefgh and hf_AbCd1234eF", "sk-*** and hf_***"),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, told: str) -> None:
    assert redacted(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "task-oriented, desk-sized, sk-1, hf_transfer",
        "the bearer of goodness, a bearer representation",
        "set teacher.api_key_env='OPENAI_API_KEY', the API key for http://127.0.0.1:8000/v1?page=2",
        "1. Basic composition: Image 1 (9/10) - a; Image 2 (7/10) - b",
        "mail someone@host, http://host/path?to=someone@host",
        "a key=value pair; the token count is 7",
    ],
)
def test_plain_words_are_left(text: str) -> None:
    assert redacted(text) == text


def test_values_of_settings_are_redacted_and_numbers_left() -> None:
    given = {"url": "https://u:p@h", "list": ["sk-abcdefgh", 1, None], "deep": {"x": 1.5}}
    assert redacted_values(given) == {"url": "https://***@h", "list": ["sk-***", 1, None], "deep": {"x": 1.5}}


@pytest.mark.parametrize(
    "text",
    ["://" * 300_000, "://" + "a" * 10**6, "&key" * 250_000, "?" + "key" * 300_000, "api key " * 100_000,
     "authorization" + " " * 10**6, "bearer " * 150_000, "bearer " + "a" * 10**6, "sk-" * 300_000, "hf_a" * 250_000,
     "api_key" + " " * 10**6, ";" + "a" * 10**6, "xapi-key" * 100_000],
    ids=range(13),
)  # fmt: skip
def test_hostile_texts_take_linear_time(text: str) -> None:
    started = time.process_time()
    redacted(text)
    assert time.process_time() - started < 5
