"""A chat-completions endpoint in this process that answers as a test scripts it and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: str, *, tokens: tuple[int, int] | None = (10, 5), finish_reason: str = "stop") -> dict[str, Any]:
    """Return the body of a chat completion."""
    usage = tokens and {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m-1", "choices": [choice], "usage": usage}


def prompt_of(body: dict[str, Any]) -> str:
    """Return the text of the last message."""
    return "".join(part.get("text", "") for part in body["messages"][-1]["content"])


@dataclass
class Answer:
    """One scripted HTTP answer; ``drip_s`` is the pause before each byte of it."""

    status: int = 200
    body: Any = field(default_factory=lambda: completion("yes"))
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0


@dataclass
class Endpoint:
    """What the server saw: request bodies, their headers, and how many it held at once at most."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    together: int = 0
    most_together: int = 0

    def prompts(self) -> list[str]:
        """Return the prompts in the order they came."""
        return [prompt_of(body) for body in self.asked]


@contextmanager
def scripted_endpoint(script: Callable[[dict[str, Any], int], Answer]) -> Iterator[Endpoint]:
    """Serve ``script(body, earlier requests with this prompt)`` while the block runs."""
    endpoint, lock = Endpoint(), threading.Lock()

    class Session(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                earlier = endpoint.prompts().count(prompt_of(body))
                endpoint.asked.append(body)
                endpoint.paths.append(self.path)
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                endpoint.together += 1
                endpoint.most_together = max(endpoint.most_together, endpoint.together)
            answer = script(body, earlier)
            time.sleep(answer.delay_s)
            with lock:
                endpoint.together -= 1
            content = answer.body if isinstance(answer.body, str | bytes) else json.dumps(answer.body)
            content = content.encode() if isinstance(content, str) else content
            try:
                self.send_response(answer.status)
                kind = "text/html" if isinstance(answer.body, str) else "application/json"
                for name, value in {"Content-Type": kind, **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for start in range(0, len(content), 1 if answer.drip_s else max(len(content), 1)):
                    time.sleep(answer.drip_s)
                    self.wfile.write(content[start:] if not answer.drip_s else content[start : start + 1])
            except OSError:  # the client has given up waiting
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Session)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
