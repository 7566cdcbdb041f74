"""Ask a teacher behind any OpenAI-compatible endpoint.

1. A request is a chat with its pictures as data URLs; a clip is its frames in order.
2. A fixed number of requests is under way at a time; busy, broken and slow answers are retried with growing pauses.
3. Every reply is on disk before the next request starts, so a killed run goes on from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion

from urt_jax.data.examples import Chat
from urt_jax.errors import BadInputError
from urt_jax.teacher.messages import openai_messages
from urt_jax.teacher.replies import Reply, Usage, append_reply, open_replies, read_replies
from urt_jax.teacher.retries import is_passing, pause_s, told


class TokenBudgetError(BadInputError):
    """The token budget is spent while requests are left; what was answered is on disk."""


@dataclass(frozen=True)
class TeacherRequest:
    """One question to the teacher; ``id`` is the record's, unique within a run."""

    id: str
    chat: Chat


@dataclass(frozen=True)
class TeacherSettings:
    """Where the teacher is and how it is asked.

    ``api_key_env`` names the environment variable that holds the key, None = the endpoint needs none. ``temperature``
    None leaves it to the endpoint (some models accept no other). ``token_budget`` counts prompt and completion tokens
    together; requests already under way when it is reached still finish. ``backoff_s`` is the first pause; each
    further one is twice as long, up to ``backoff_max_s``.
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    concurrency: int = 4
    retries: int = 5
    timeout_s: float = 120.0
    temperature: float | None = None
    max_tokens: int = 1024
    token_budget: int | None = None
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse settings under which nothing would be asked."""
        if self.concurrency < 1 or self.retries < 0:
            raise BadInputError(
                f"teacher: concurrency={self.concurrency} and retries={self.retries} given; "
                "concurrency must be at least 1, retries at least 0"
            )


def ask_teacher(
    requests: Iterable[TeacherRequest],
    settings: TeacherSettings,
    *,
    replies_path: str | Path,
    progress: Callable[[Usage], None] | None = None,
) -> Usage:
    """Ask every request that has no answer in ``replies_path`` yet, and append what comes back.

    A request that fails for good is written down with its error and counted; a later call asks it again.
    ``requests`` is drawn from as workers become free. ``progress`` is called with the running count after each reply;
    an exception it raises stops the asking once the requests under way are done.

    Raises:
        BadInputError: no API key, key or model refused, endpoint out of reach, an id used twice, replies on disk
            that answer another question, an endpoint without token counts when there is a budget.
        TokenBudgetError: the budget is spent and requests are left.
    """
    return _run_to_end(_Asking(settings, Path(replies_path), progress).ask_all(requests))


def _run_to_end(coroutine: Coroutine[Any, Any, Usage]) -> Usage:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # A notebook already runs a loop in this thread, and one thread cannot run two.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class _Asking:
    """The state of one call: what is answered, the open reply file, and why to stop early."""

    def __init__(self, settings: TeacherSettings, path: Path, progress: Callable[[Usage], None] | None) -> None:
        self.settings = settings
        self.path = path
        self.progress = progress
        self.api_key = read_api_key(settings)
        self.known = read_replies(path)
        self.usage = Usage()
        for reply in self.known.values():
            if reply.text is not None:
                self.usage = self.usage.plus(reply)
        self.seen: set[str] = set()
        self.answered_now = 0
        self.stop: Exception | None = None
        self.limit_name = "max_tokens"
        self.drawing = asyncio.Lock()

    async def ask_all(self, requests: Iterable[TeacherRequest]) -> Usage:
        pending = iter(requests)
        loopback = urlsplit(self.settings.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        client = openai.AsyncOpenAI(
            base_url=self.settings.base_url,
            api_key=self.api_key,
            timeout=self.settings.timeout_s,
            max_retries=0,  # retries are ours, so that attempts are counted
            # A proxy of the environment cannot reach a server on this machine.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if loopback else None,
        )
        with open_replies(self.path) as self.file:
            async with client, asyncio.TaskGroup() as workers:
                for _ in range(self.settings.concurrency):
                    workers.create_task(self.work(client, pending))
        if self.stop is not None:
            raise self.stop
        return self.usage

    async def work(self, client: openai.AsyncOpenAI, pending: Iterator[TeacherRequest]) -> None:
        """Take requests one by one until none is left or a reason to stop has come up."""
        while self.stop is None:
            try:
                request = await self.draw(pending)
                if request is None or self.stop is not None or self.budget_spent():
                    return
                self.keep(await self.answer(client, request))
            except Exception as error:  # raised at the end; until then the others write down what they have paid for
                self.stop = self.stop or error

    async def draw(self, pending: Iterator[TeacherRequest]) -> TeacherRequest | None:
        """Return the next request without an answer on disk, None when there is none."""
        async with self.drawing:
            while (request := await asyncio.to_thread(next, pending, None)) is not None:
                if request.id in self.seen:
                    raise BadInputError(f"record id {request.id!r} is used twice; a teacher's replies are kept by id")
                self.seen.add(request.id)
                reply = self.known.get(request.id)
                if reply is None or reply.text is None:
                    return request
                if reply.request != fingerprint(request, self.settings):
                    raise BadInputError(
                        f"{self.path} answers record {request.id!r} for another prompt, model or sampling setting "
                        f"than now asked; use a new workdir, or delete {self.path.name} to ask everything again"
                    )
            return None

    def budget_spent(self) -> bool:
        budget = self.settings.token_budget
        if budget is None or self.usage.total_tokens < budget:
            return False
        self.stop = TokenBudgetError(
            f"token budget of {budget:,} reached: {self.usage.total_tokens:,} tokens used for {self.usage.answered:,} "
            f"answers, all kept in {self.path}; raise teacher.token_budget and start again to go on from there"
        )
        return True

    def keep(self, reply: Reply) -> None:
        append_reply(self.file, reply)
        self.usage = self.usage.plus(reply)
        self.answered_now += reply.text is not None
        if self.progress is not None:
            self.progress(self.usage)
        if self.settings.token_budget is not None and reply.text is not None and reply.prompt_tokens is None:
            raise BadInputError(
                f"{self.settings.base_url} reports no token counts, so teacher.token_budget="
                f"{self.settings.token_budget:,} cannot be kept; set teacher.token_budget=None"
            )

    async def answer(self, client: openai.AsyncOpenAI, request: TeacherRequest) -> Reply:
        """Ask one request until it is answered, refused or out of retries."""
        mark = fingerprint(request, self.settings)
        try:
            messages = await asyncio.to_thread(openai_messages, request.chat, name=f"record {request.id}")
        except BadInputError as error:
            return _failed(request, mark, str(error), self.settings, latency_s=0.0, attempts=0)
        attempt = 0
        while True:
            attempt += 1
            started = time.monotonic()
            limit_name = self.limit_name
            arguments: dict[str, Any] = {"model": self.settings.model, "messages": messages}
            arguments[limit_name] = self.settings.max_tokens
            if self.settings.temperature is not None:
                arguments["temperature"] = self.settings.temperature
            try:
                completion = await client.chat.completions.create(**arguments)
                return _answered(request, mark, completion, time.monotonic() - started, attempt, self.settings)
            except openai.APIError as error:
                if limit_name == "max_tokens" and "max_completion_tokens" in str(error):
                    self.limit_name = "max_completion_tokens"  # the newer name, which some models insist on
                    continue
                self.refuse_hopeless(error)
                if attempt > self.settings.retries or not is_passing(error):
                    self.refuse_out_of_reach(error)
                    latency_s = time.monotonic() - started
                    return _failed(request, mark, told(error), self.settings, latency_s=latency_s, attempts=attempt)
                first_s, longest_s = self.settings.backoff_s, self.settings.backoff_max_s
                await asyncio.sleep(pause_s(error, attempt, first_s=first_s, longest_s=longest_s))

    def refuse_hopeless(self, error: openai.APIError) -> None:
        """Raise when no request of this run can succeed."""
        where = f"teacher at {self.settings.base_url}, model {self.settings.model!r}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            variable = self.settings.api_key_env
            remedy = (
                f"check the key in {variable}"
                if variable
                else "set teacher.api_key_env to the variable that holds a key"
            )
            raise BadInputError(f"{where}: access refused ({told(error)}); {remedy}") from error
        if isinstance(error, openai.NotFoundError):
            raise BadInputError(
                f"{where}: not found ({told(error)}); check teacher.model, and that teacher.base_url ends as the "
                "endpoint's documentation says, mostly in /v1"
            ) from error
        if getattr(error, "code", None) == "insufficient_quota":
            raise BadInputError(f"{where}: the account has no quota left ({told(error)})") from error

    def refuse_out_of_reach(self, error: openai.APIError) -> None:
        unreachable = isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)
        if unreachable and self.answered_now == 0:
            raise BadInputError(
                f"teacher at {self.settings.base_url} cannot be reached ({told(error)}); check teacher.base_url and "
                "that the server is running"
            ) from error


def read_api_key(settings: TeacherSettings) -> str:
    """Return the key from the named environment variable, a placeholder when the endpoint needs none.

    Raises:
        BadInputError: the variable is unset or empty.
    """
    if settings.api_key_env is None:
        return "none"
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise BadInputError(
            f"environment variable {settings.api_key_env} is not set, it must hold the API key for "
            f"{settings.base_url}; export it, or set teacher.api_key_env to the variable that does"
        )
    return key


def fingerprint(request: TeacherRequest, settings: TeacherSettings) -> str:
    """Return a short digest of the prompt and of the settings that shape an answer (pictures are left out)."""
    asked = [request.chat.messages, settings.model, settings.temperature, settings.max_tokens]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _failed(
    request: TeacherRequest, mark: str, error: str, settings: TeacherSettings, *, latency_s: float, attempts: int
) -> Reply:
    return Reply(request.id, mark, None, error, settings.model, None, None, None, round(latency_s, 3), attempts)


def _answered(
    request: TeacherRequest, mark: str, completion: Any, latency_s: float, attempts: int, settings: TeacherSettings
) -> Reply:
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        error = "HTTP 200 without a chat completion; check that teacher.base_url is an OpenAI-compatible API root"
        return _failed(request, mark, error, settings, latency_s=latency_s, attempts=attempts)
    choice, usage = completion.choices[0], completion.usage
    return Reply(
        id=request.id,
        request=mark,
        text=choice.message.content or "",
        error=None,
        model=completion.model or settings.model,
        finish_reason=choice.finish_reason,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        completion_tokens=None if usage is None else usage.completion_tokens,
        latency_s=round(latency_s, 3),
        attempts=attempts,
    )
