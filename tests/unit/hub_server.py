"""A server on this machine that speaks just enough of the hub's protocol for its client to list and fetch files."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """Repositories by name, their files by revision; notes every request."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.commits = ""
        """What it calls every commit, when it lies."""
        self.tag = ""
        """What it calls every file, when it lies."""
        self.speaks = threading.Event()
        """Cleared while it takes requests and answers none."""
        self.speaks.set()
        self.endpoint = ""

    def commit(self, repo: str, revision: str, files: dict[str, bytes]) -> str:
        """Put files under a revision and return its commit."""
        content = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in files.items()})
        commit = hashlib.sha1(content.encode()).hexdigest()
        for each in (revision, commit):
            self.files[repo, each] = files
        self.files[repo, f"sha of {revision}"] = {"sha": commit.encode()}
        return commit

    def sha(self, repo: str, revision: str) -> str:
        named = self.files.get((repo, f"sha of {revision}"))
        if self.commits:
            return self.commits
        return named["sha"].decode() if named else revision

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a GET; a HEAD gets the same without the body."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            repo, what, revision = "/".join(parts[2:4]), parts[4], "/".join(parts[5:])
            files = self.files.get((repo, revision))
            if files is None:
                known = any(key[0] == repo for key in self.files)
                return 404, {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"}, b"{}"
            content: Any = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            if what == "revision":
                siblings = [{"rfilename": name} for name in files]
                content = {"id": repo, "sha": self.sha(repo, revision), "siblings": siblings, "private": False}
            return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
        repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        data = self.files.get((repo, revision), {}).get(name)
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.sha(repo, revision)}, b""
        etag = f'"{self.tag or hashlib.sha1(data).hexdigest()}"'
        return 200, {"ETag": etag, "X-Repo-Commit": self.sha(repo, revision), "Accept-Ranges": "none"}, data


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            hub.speaks.wait(60)
            status, headers, body = hub.answer(urlparse(self.path).path)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            del words

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
