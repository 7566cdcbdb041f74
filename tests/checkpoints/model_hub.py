"""A hub on 127.0.0.1 that serves one model folder by the few endpoints a snapshot download asks."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPO = "lab/judge"
COMMITS = {"main": "a" * 40, "v1.0": "b" * 40}


class ModelHub(ThreadingHTTPServer):
    """Serves ``folder`` as ``lab/judge`` at each of its revisions; a test breaks it and reads what was asked.

    ``refusal`` is (status, X-Error-Code) of every answer below ``refused``; ``cut`` counts how often the answer with a
    file still breaks off half-way.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.refused = ""  # start of the paths that are refused; "" = none
        self.refusal = (403, "GatedRepo")
        self.cut: dict[str, int] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """The address to give as ``endpoint``."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> set[str]:
        """Return the names of the files whose content was asked for."""
        return {line.rpartition("/")[2] for line in self.asked if line.startswith("GET") and "/resolve/" in line}


@contextmanager
def serving(folder: Path) -> Iterator[ModelHub]:
    """Run a hub in a thread and stop it at the end."""
    with ModelHub(folder) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(f"{self.command} {self.path}")

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        hub = self.server
        if hub.refused and path.startswith(hub.refused):
            return self._refuse(*hub.refusal)
        if path.startswith("/api/models/"):
            repo, _, rest = path.removeprefix("/api/models/").partition("/revision/")
            if not rest:
                repo, _, rest = path.removeprefix("/api/models/").partition("/tree/")
                return self._send_json(self._tree()) if repo == REPO else self._refuse(404, "RepoNotFound")
            if repo != REPO:
                return self._refuse(404, "RepoNotFound")
            if rest not in COMMITS:
                return self._refuse(404, "RevisionNotFound")
            return self._send_json({"id": REPO, "modelId": REPO, "sha": COMMITS[rest], "siblings": []})
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        commit, _, name = rest.partition("/")
        if repo != REPO or commit not in COMMITS.values() or not (hub.folder / name).is_file():
            return self._refuse(404, "EntryNotFound")
        self._send_file(name, commit)

    def _tree(self) -> list[dict[str, object]]:
        files = sorted(path for path in self.server.folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": str(path.relative_to(self.server.folder)),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in files
        ]

    def _send_file(self, name: str, commit: str) -> None:
        content = (self.server.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            breaks = self.server.cut.get(name, 0)
            self.server.cut[name] = max(breaks - 1, 0)
            self.wfile.write(content[: len(content) // 2] if breaks else content)

    def _send_json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
