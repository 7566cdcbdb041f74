"""The built-in teacher of ``scenes``: an OpenAI-protocol server in a process of its own.

1. Its arguments name a pool of scenes (tasks, counts, seed); it regenerates the pool and hashes the pictures.
2. A request is what any teacher gets: a prompt and data-URL pictures. Their hashes identify the scene.
3. It writes the reasoning of a judge that misreads at a set rate. The label is removed from the scene before.

    python -m urt_jax.scenes.oracle --seed 0 --task image_gen=64 --error-rate 0.05 --port 0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.data.images import PixelBudget, load_image
from urt_jax.errors import BadInputError, shown
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import JsonError, parse_object
from urt_jax.scenes import make_example, write_reasoning
from urt_jax.scenes.pool import OracleSettings, RefusalError, ScenePool, pixel_hash
from urt_jax.tasks import TASKS

MODEL_NAME = "scenes-oracle"
TOKENS_PER_PICTURE = 16  # tokens of a picture in the reported usage; a word counts as one
MAX_BODY_BYTES = 256 << 20  # of a request; our largest, two clips of 64 frames as PNG, have some 100 MB
MAX_PARTS = 4096  # messages of a request, and parts of a message
IDLE_S = 300.0  # after which an idle connection is closed


class Oracle:
    """Answers chat requests about one pool of scenes; safe to call from several threads."""

    def __init__(
        self,
        settings: OracleSettings,
        *,
        make: Callable[..., Example] = make_example,
        write: Callable[..., str] = write_reasoning,
    ) -> None:
        self.settings = settings
        self.pool = ScenePool(settings, make)
        self.write = write
        self._attempts: dict[tuple[str, ...], int] = defaultdict(int)
        self._lock = threading.Lock()

    def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the chat completion for one request body of ``/v1/chat/completions``.

        Raises:
            RefusalError: with the HTTP status of the answer.
        """
        if request.get("model") != MODEL_NAME:
            raise RefusalError(
                404, f"the model {shown(request.get('model'))} does not exist; this server has {MODEL_NAME!r}"
            )
        prompt, pictures = read_request(request)
        self._misbehave(pictures)
        scene = self.pool.find(pictures, prompt)
        # Seeded by pictures and prompt, so a reply depends on no other request.
        text = self.write(replace(scene, label=None), self._rng("reading", *pictures, prompt), self.settings.error_rate)
        prompt_tokens = len(prompt.split()) + TOKENS_PER_PICTURE * len(pictures)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(text.split())}
        return {
            "id": f"chatcmpl-{hashlib.sha256(prompt.encode()).hexdigest()[:12]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": MODEL_NAME,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }

    def _misbehave(self, pictures: tuple[str, ...]) -> None:
        time.sleep(self.settings.latency_s)
        with self._lock:
            self._attempts[pictures] += 1
            attempt = self._attempts[pictures]
        draw = self._rng("attempt", str(attempt), *pictures).random()
        if draw < self.settings.busy_rate:
            raise RefusalError(429, "too many requests, come back later")
        if draw < self.settings.busy_rate + self.settings.broken_rate:
            raise RefusalError(500, "the server stumbled")

    def _rng(self, *parts: str) -> np.random.Generator:
        digest = hashlib.sha256("\n".join((str(self.settings.error_seed), *parts)).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def read_request(request: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the prompt's text and the hashes of its pictures, in order.

    Raises:
        RefusalError: 400 when the body is not a chat request or a picture is not a readable data URL.
    """
    texts: list[str] = []
    pictures: list[str] = []
    budget = PixelBudget()
    try:
        messages = Fields(request, "not a chat request").items_of("messages", at_most=MAX_PARTS)
        for message in map(messages.group, messages):
            if isinstance(content := message.get("content"), str):
                texts.append(content)
                continue
            parts = message.items_of("content", at_most=MAX_PARTS)
            for part in map(parts.group, parts):
                if part.choice("type", ("text", "image_url")) == "text":
                    texts.append(part.text("text"))
                    continue
                url = part.group("image_url").text("url")
                if not url.startswith("data:"):
                    raise RefusalError(400, "pictures must be data URLs; this server fetches nothing")
                name = f"picture {len(pictures) + 1}"
                pictures.append(pixel_hash(load_image(Media("image", url), name=name, budget=budget)))
    except BadInputError as error:
        raise RefusalError(400, str(error)) from error
    return "\n".join(texts), tuple(pictures)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, oracle: Oracle) -> None:
        super().__init__(("127.0.0.1", port), _Session)
        self.oracle = oracle


class _Session(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open between requests
    timeout = IDLE_S
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "owned_by": "urt_jax"}]})
        else:
            self._refuse(RefusalError(404, f"no such address: {self.path}"))

    def do_POST(self) -> None:
        try:
            body = self._body()
            if self.path != "/v1/chat/completions":
                raise RefusalError(404, f"no such address: {self.path}")
            try:
                request = parse_object(body)
            except JsonError as error:
                raise RefusalError(400, f"the body cannot be read: {error}") from error
            self._send(200, self.server.oracle.complete(request))
        except RefusalError as refusal:
            self._refuse(refusal)

    def _body(self) -> bytes:
        """Return the body, whose length the header must state; a refusal closes the connection, its body unread."""
        stated = self.headers.get("Content-Length", "")
        closing, self.close_connection = self.close_connection, True
        if not (stated.isascii() and stated.isdigit() and len(stated) < 20):
            raise RefusalError(411, f"Content-Length is {shown(stated)}; needed the body's bytes")
        if int(stated) > MAX_BODY_BYTES:
            raise RefusalError(413, f"a body of {int(stated):,} bytes; at most {MAX_BODY_BYTES:,} are read")
        body = self.rfile.read(int(stated))
        if len(body) < int(stated):
            raise RefusalError(400, f"the body broke off after {len(body):,} of {int(stated):,} bytes")
        self.close_connection = closing
        return body

    def _refuse(self, refusal: RefusalError) -> None:
        self._send(refusal.status, {"error": {"message": str(refusal), "type": "oracle", "code": None}})

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        if status == 429:
            self.send_header("Retry-After", "0.05")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write no access log: standard output carries the port only."""


def _task_count(text: str) -> tuple[str, int]:
    task, _, count = text.partition("=")
    if task not in TASKS or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=COUNT with one of {', '.join(TASKS)}")
    return task, int(count)


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent's end of the pipe closes, however the parent ended
    os._exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped; the first line on standard output is the port."""
    parser = argparse.ArgumentParser(prog="python -m urt_jax.scenes.oracle", description="the built-in teacher")
    parser.add_argument("--task", type=_task_count, action="append", required=True, metavar="TASK=COUNT")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes")
    parser.add_argument("--error-seed", type=int, default=0, help="of the misreadings")
    parser.add_argument("--split", default="train", choices=("train", "heldout"))
    for name, default, meaning in (
        ("difficulty", 0.45, "share of close pairs"),
        ("error-rate", 0.0, "chance to misread one attribute"),
        ("busy-rate", 0.0, "share of attempts answered 429"),
        ("broken-rate", 0.0, "share of attempts answered 500"),
        ("latency-s", 0.0, "seconds before an answer"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, help=meaning)
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the parent process ends")
    given = vars(parser.parse_args(arguments))
    port, watch = given.pop("port"), given.pop("until_stdin_closes")
    settings = OracleSettings(counts=dict(given.pop("task")), **given)
    server = _Server(port, Oracle(settings))
    if watch:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
