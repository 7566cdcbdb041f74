"""The client of a teacher behind any OpenAI-compatible endpoint.

1. A request is a chat with its pictures as data URLs; a clip is its frames in order.
2. A fixed number of requests runs at a time; busy, broken and slow ones are retried with growing pauses.
3. Every reply is on disk before the next request starts, so a killed run resumes there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai

from urt_jax.data.examples import Query
from urt_jax.errors import BadInputError, shown
from urt_jax.files.json_text import well_formed
from urt_jax.files.redaction import keep_address, keep_secret, known_secrets, redacted
from urt_jax.settings import bound_problems
from urt_jax.teacher.answers import FILTERED, Answer, read_answer
from urt_jax.teacher.exchange import check_address, exchange, open_client
from urt_jax.teacher.messages import openai_messages
from urt_jax.teacher.replies import Reply, Usage, append_reply, open_replies, read_replies
from urt_jax.teacher.retries import EndpointError, is_passing, pause_s
from urt_jax.teacher.settings import TeacherSettings

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before the first retry and before any; each is twice as long as the last


class TokenBudgetError(BadInputError):
    """The token budget is spent while requests are left; the answers so far are on disk."""


def ask_teacher(
    requests: Iterable[Query],
    settings: TeacherSettings,
    *,
    replies_path: str | Path,
    progress: Callable[[Usage], None] | None = None,
) -> Usage:
    """Send every request that has no answer in ``replies_path`` yet, and append the replies.

    A request that fails after all retries is recorded with its error and counted; a later call sends it again.
    ``requests`` is iterated as workers become free. ``progress`` is called with the running count after each reply;
    an exception it raises stops the client once the running requests are done.

    Raises:
        BadInputError: settings outside their bounds, no address, no API key, key or model refused, endpoint
            unreachable, an id used twice, replies on disk to another prompt, an endpoint without token counts when
            there is a budget.
        TokenBudgetError: the budget is spent and requests are left.
    """
    return _run_to_end(_Asking(settings, Path(replies_path), progress).ask_all(requests))


def _run_to_end(coroutine: Coroutine[Any, Any, Usage]) -> Usage:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # A notebook already runs an event loop in this thread, and a thread cannot run two.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class _Asking:
    """The state of one call: the replies so far, the open reply file, and the reason to stop early."""

    def __init__(self, settings: TeacherSettings, path: Path, progress: Callable[[Usage], None] | None) -> None:
        self.settings = settings
        self.path = path
        self.progress = progress
        for name, told in bound_problems(settings):
            raise BadInputError(f"teacher.{name}: {told}")
        keep_address(settings.base_url)
        check_address(settings.base_url)
        self.api_key = read_api_key(settings)
        self.secrets = known_secrets()
        self.address = redacted(settings.base_url)
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

    async def ask_all(self, requests: Iterable[Query]) -> Usage:
        pending = iter(requests)
        client = open_client(self.settings.base_url, self.api_key, timeout_s=self.settings.timeout_s)
        with open_replies(self.path) as self.file:
            async with client, asyncio.TaskGroup() as workers:
                for _ in range(self.settings.concurrency):
                    workers.create_task(self.work(client, pending))
        if self.stop is not None:
            raise self.stop
        return self.usage

    async def work(self, client: openai.AsyncOpenAI, pending: Iterator[Query]) -> None:
        """Send requests one by one until none is left or there is a reason to stop."""
        while self.stop is None:
            try:
                request = await self.draw(pending)
                if request is None or self.stop is not None or self.budget_spent():
                    return
                self.keep(await self.answer(client, request))
            except Exception as error:  # raised at the end; until then the other workers record their paid replies
                self.stop = self.stop or error

    async def draw(self, pending: Iterator[Query]) -> Query | None:
        """Return the next request without an answer on disk, None if there is none."""
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
                        f"than this run's; use a new workdir, or delete {self.path.name} to ask everything again"
                    )
            return None

    def budget_spent(self) -> bool:
        budget = self.settings.token_budget
        if budget is None or self.usage.total_tokens < budget:
            return False
        self.stop = TokenBudgetError(
            f"token budget of {budget:,} reached: {self.usage.total_tokens:,} tokens used for {self.usage.answered:,} "
            f"answers, all kept in {self.path}; raise teacher.token_budget and start again to resume"
        )
        return True

    def keep(self, reply: Reply) -> None:
        append_reply(self.file, reply)
        self.usage = self.usage.plus(reply)
        self.answered_now += reply.text is not None
        if self.progress is not None:
            self.progress(self.usage)
        counted = reply.prompt_tokens is not None or reply.text is None or reply.refusal is not None
        if self.settings.token_budget is not None and not counted:
            raise BadInputError(
                f"{self.address} reports no token counts, so teacher.token_budget="
                f"{self.settings.token_budget:,} cannot be kept; set teacher.token_budget=None"
            )

    async def answer(self, client: openai.AsyncOpenAI, request: Query) -> Reply:
        """Send one request until it is answered, refused or out of retries."""
        mark = fingerprint(request, self.settings)
        try:
            messages = await asyncio.to_thread(openai_messages, request.chat, name=f"record {request.id}")
        except BadInputError as error:
            return self.failed(request, mark, str(error), latency_s=0.0, attempts=0)
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
                body = await exchange(client, arguments, timeout_s=self.settings.timeout_s, mend=self.mend)
                answer = read_answer(body, mend=self.mend)
            except EndpointError as error:
                latency_s = time.monotonic() - started
                if limit_name == "max_tokens" and "max_completion_tokens" in error.words:
                    self.limit_name = "max_completion_tokens"  # the newer name, which some models require
                    continue
                if error.filtered:
                    answer = Answer("", None, f"stopped by a content filter ({error})", None, FILTERED, None, None)
                    return self.answered(request, mark, answer, latency_s, attempt)
                self.refuse_hopeless(error)
                if attempt > self.settings.retries or not is_passing(error):
                    self.refuse_out_of_reach(error)
                    return self.failed(request, mark, str(error), latency_s=latency_s, attempts=attempt)
                await asyncio.sleep(pause_s(error, attempt, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S))
            else:
                return self.answered(request, mark, answer, time.monotonic() - started, attempt)

    def mend(self, text: str) -> str:
        """Return a text of the endpoint in a form safe to print and store: well formed, with secrets redacted."""
        return redacted(well_formed(text), self.secrets)

    def refuse_hopeless(self, error: EndpointError) -> None:
        """Raise if no request of this run can succeed."""
        where = f"teacher at {self.address}, model {shown(self.settings.model)}"
        if error.is_quota:
            raise BadInputError(f"{where}: the account has no quota left ({error})")
        if error.is_access:
            variable = self.settings.api_key_env
            remedy = (
                f"check the key in {variable}"
                if variable
                else "set teacher.api_key_env to the variable that holds a key"
            )
            raise BadInputError(f"{where}: access refused ({error}); {remedy}")
        if error.is_missing:
            raise BadInputError(
                f"{where}: not found ({error}); check teacher.model, and that teacher.base_url ends as the "
                "endpoint's documentation says, mostly in /v1"
            )

    def refuse_out_of_reach(self, error: EndpointError) -> None:
        if error.unreachable and self.answered_now == 0:
            raise BadInputError(
                f"teacher at {self.address} cannot be reached ({error}); check teacher.base_url and that the server "
                "is running"
            )

    def failed(self, request: Query, mark: str, error: str, *, latency_s: float, attempts: int) -> Reply:
        model = self.settings.model
        return Reply(request.id, mark, None, error, model, None, None, None, round(latency_s, 3), attempts)

    def answered(self, request: Query, mark: str, answer: Answer, latency_s: float, attempts: int) -> Reply:
        return Reply(
            id=request.id,
            request=mark,
            text=answer.text,
            error=None,
            model=answer.model or self.settings.model,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            latency_s=round(latency_s, 3),
            attempts=attempts,
            reasoning=answer.reasoning,
            refusal=answer.refusal,
        )


def read_api_key(settings: TeacherSettings) -> str:
    """Return the key from the named environment variable, or a placeholder if the endpoint needs none.

    Raises:
        BadInputError: the variable is unset or empty.
    """
    name = settings.api_key_env
    if name is None:
        return "none"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise BadInputError(
            "teacher.api_key_env is not the name of an environment variable; put the key into a variable and give the "
            "name of that, such as OPENAI_API_KEY"
        )
    key = os.environ.get(name, "").strip()
    where = redacted(settings.base_url)
    if not key:
        state = "is empty" if name in os.environ else "is not set"
        raise BadInputError(
            f"environment variable {name} {state}, it must hold the API key for {where}; export it, or set "
            "teacher.api_key_env to the variable that does (None if the endpoint needs no key)"
        )
    if not (key.isascii() and key.isprintable()):
        raise BadInputError(
            f"environment variable {name} holds characters that no API key for {where} has (line breaks, other "
            "alphabets); copy the key again"
        )
    keep_secret(key)
    return key


def fingerprint(request: Query, settings: TeacherSettings) -> str:
    """Return a short digest of the prompt and of the settings that affect an answer (without pictures)."""
    asked = [request.chat.messages, settings.model, settings.temperature, settings.max_tokens]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
