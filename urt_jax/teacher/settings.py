"""The settings of a teacher: its endpoint, its sampling, and the limits on requests."""

from dataclasses import dataclass

from urt_jax.errors import shown
from urt_jax.files.redaction import redacted
from urt_jax.settings import Problems, knob


@dataclass(frozen=True)
class TeacherSettings:
    """The teacher that writes reasonings: the built-in one for ``scenes`` or an OpenAI-compatible endpoint.

    ``token_budget`` counts prompt and reply tokens together; requests in flight when it is reached still finish.
    """

    base_url: str = "builtin"  # or https://.../v1
    model: str = "scenes-oracle"  # the model's name at the endpoint; ignored by the built-in teacher
    api_key_env: str | None = "OPENAI_API_KEY"  # environment variable of the key; None = no key ("builtin" needs none)
    concurrency: int = knob(8, at_least=1)  # requests in flight
    retries: int = knob(5, at_least=0)  # after 429, 5xx and time-outs, with back-off
    timeout_s: float = knob(120.0, above=0)  # seconds of one attempt, from its first byte to its last
    temperature: float | None = knob(1.0, at_least=0)  # None = the endpoint's own (some models accept no other)
    max_tokens: int = knob(2048, at_least=1)  # of one reply
    token_budget: int | None = knob(None, at_least=1)  # prompt and reply tokens of the whole stage, which then stops
    error_rate: float = knob(0.05, at_least=0, at_most=1)  # built-in only: chance to misread one attribute

    def problems(self) -> Problems:
        """Yield the knobs that are invalid, each with its message."""
        if self.base_url != "builtin" and not self.base_url.startswith(("http://", "https://")):
            given = redacted(shown(self.base_url))
            yield "base_url", f"{given} is neither 'builtin' nor an http(s) address such as https://host/v1"
