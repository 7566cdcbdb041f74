"""Settings of the teacher: where it is and how it is asked."""

from dataclasses import dataclass

from urt_jax.errors import BadInputError, shown
from urt_jax.files.redaction import redacted
from urt_jax.settings import Problems, bounds_problems, knob


@dataclass(frozen=True)
class TeacherSettings:
    """Where reasonings come from: the built-in teacher of ``scenes`` or any OpenAI-compatible endpoint."""

    base_url: str = "builtin"  # or https://.../v1
    model: str = "scenes-oracle"  # its name at the endpoint; the built-in teacher reads none
    # Environment variable that holds the key; None = the endpoint needs none ("builtin" never does).
    api_key_env: str | None = "OPENAI_API_KEY"
    concurrency: int = knob(8, at_least=1)  # requests under way at a time
    retries: int = knob(5, at_least=0)  # after 429, 5xx and time-outs, with growing pauses
    timeout_s: float = knob(120.0, above=0)  # seconds of an attempt until it is given up, and tried again
    temperature: float | None = knob(1.0, at_least=0)  # None = the endpoint's own (some models take no other)
    max_tokens: int = knob(2048, at_least=1)  # of one reply
    # Prompt and reply tokens of the whole stage, then stop; requests already under way still finish. None = no limit.
    token_budget: int | None = knob(None, at_least=1)
    error_rate: float = knob(0.05, at_least=0, at_most=1)  # built-in teacher only: chance to misread one attribute

    def __post_init__(self) -> None:
        """Refuse settings under which nothing would be asked."""
        for name, told in bounds_problems(self):
            raise BadInputError(f"teacher: {name}: {told}")

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        if self.base_url != "builtin" and not self.base_url.startswith(("http://", "https://")):
            given = redacted(shown(self.base_url))
            yield "base_url", f"{given} is neither 'builtin' nor an http(s) address such as https://host/v1"
