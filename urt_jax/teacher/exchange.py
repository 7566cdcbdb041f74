"""One HTTP exchange with an endpoint, bounded in bytes and seconds."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import httpx2
import openai

from urt_jax.errors import BadInputError, shown
from urt_jax.files.redaction import redacted
from urt_jax.teacher.answers import Mend, refused_answer
from urt_jax.teacher.retries import EndpointError, retry_after_s

# Of one decoded reply: 128,000 tokens of reasoning, escaped, have 1 MB, and some servers send them three times. A
# compressed reply can be a thousandth of its decoded size; parsed, it takes sixty times that size.
MAX_REPLY_BYTES = 4 << 20
MAX_REDIRECTS = 5  # an address that moved redirects once, not in a chain
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.ProxyError)


def _redact(record: logging.LogRecord) -> bool:
    """Redact a line that a library logs, since it contains the full address of each request."""
    record.msg, record.args = redacted(record.getMessage()), ()
    return True


for _library in ("httpx2", "openai._base_client", "openai._legacy_response"):
    logging.getLogger(_library).addFilter(_redact)


class _BoundedClient(openai.DefaultAsyncHttpxClient):
    """An HTTP client that reads at most ``MAX_REPLY_BYTES`` of a decompressed response."""

    async def send(self, request: httpx2.Request, **settings: Any) -> httpx2.Response:
        """Send a request and return its response, read to the end.

        Raises:
            EndpointError: the response is larger.
        """
        settings |= {"stream": True, "follow_redirects": False}
        for _ in range(MAX_REDIRECTS + 1):
            response = await super().send(request, **settings)
            content = await _content(response)
            if response.next_request is None:
                break
            request = response.next_request
        headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
        return httpx2.Response(response.status_code, headers=headers, content=content, request=response.request)


async def _content(response: httpx2.Response) -> bytes:
    content = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_REPLY_BYTES:
                raise EndpointError(f"a reply of more than {MAX_REPLY_BYTES:,} bytes, which is not read")
    finally:
        await response.aclose()
    return bytes(content)


def check_address(base_url: str) -> None:
    """Refuse an address that no request can be sent to.

    Raises:
        BadInputError: a scheme other than http(s), no host, a port that is not a number.
    """
    try:
        parts = urlsplit(base_url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        sound = sound and bool(httpx2.URL(base_url).host) and not re.search(r"\s", base_url)
    except (ValueError, httpx2.InvalidURL):
        sound = False
    if not sound:
        given = redacted(shown(base_url))
        raise BadInputError(f"teacher: base_url={given} is not an address; give one such as https://host/v1")


def open_client(base_url: str, api_key: str, *, timeout_s: float) -> openai.AsyncOpenAI:
    """Return a client of an endpoint; the query of its address (``?api-version=...``) is sent with every request."""
    parts = urlsplit(base_url)
    loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
    return openai.AsyncOpenAI(
        base_url=urlunsplit(parts._replace(query="", fragment="")),
        default_query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        api_key=api_key,
        timeout=timeout_s,
        max_retries=0,  # this client retries itself, so that attempts are counted
        # A proxy from the environment cannot reach a server on this machine.
        http_client=_BoundedClient(trust_env=not loopback, timeout=timeout_s),
    )


async def exchange(client: openai.AsyncOpenAI, arguments: dict[str, Any], *, timeout_s: float, mend: Mend) -> bytes:
    """Return the body of the response to one chat request.

    ``timeout_s`` counts from the first byte sent to the last byte read. ``mend`` is applied to the texts of errors.

    Raises:
        EndpointError: a status other than 200, no connection, a broken connection, too many bytes or seconds.
    """
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.chat.completions.with_raw_response.create(**arguments)
            return response.content
    except (TimeoutError, openai.APITimeoutError) as error:
        if isinstance(error.__cause__, httpx2.ConnectTimeout):
            raise EndpointError(f"no connection within {timeout_s:g} s", unreachable=True) from None
        raise EndpointError(f"no whole answer within {timeout_s:g} s (teacher.timeout_s)", lost=True) from None
    except openai.APIStatusError as error:
        after_s = retry_after_s(error.response.headers)
        raise refused_answer(error.status_code, error.response.content, mend=mend, after_s=after_s) from None
    except openai.APIConnectionError as error:
        cause = error.__cause__
        if isinstance(cause, _NOT_CONNECTED):
            raise EndpointError(mend(f"no connection: {cause}"), unreachable=True) from None
        told = f"the connection broke off: {type(cause).__name__} {cause or ''}"
        raise EndpointError(mend(told), lost=True) from None
    except (openai.OpenAIError, httpx2.InvalidURL, UnicodeError) as error:
        raise EndpointError(mend(f"the request could not be sent: {type(error).__name__}: {error}")) from None
