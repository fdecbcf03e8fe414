"""A small Hugging Face hub on 127.0.0.1, complete enough for the real client, with faults on demand."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import unquote, urlsplit

from loopback_server import LoopbackHandler, LoopbackServer


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)


class LoopbackHub(LoopbackServer):
    """`with LoopbackHub() as hub:` serves until the block ends; HF_ENDPOINT=hub.url points the client at it.

    requests      one "METHOD path" for every request that came in
    corrupt       paths in a repository whose bodies are sent with their last byte changed
    heard         called with the headers of each request
    distort       (method, status, headers, body) of a file's answer → status, headers and body that are sent instead
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.corrupt: set[str] = set()
        self.distort: Callable[[str, int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]] | None = None
        self.uploads: dict[str, bytes] = {}
        self.heard: Callable[[Message], object] | None = None

    def commit(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add `files` to the branch and return the new commit's hash."""
        repo = self.repositories.setdefault(repository, Repository())
        tree = {**repo.commits.get(repo.refs.get(branch, ""), {}), **files}
        digest = hashlib.sha1(repr([repository, len(repo.commits), sorted(tree)]).encode()).hexdigest()
        repo.commits[digest] = tree
        repo.refs[branch] = digest
        return digest


class _Handler(LoopbackHandler):
    served: LoopbackHub

    def do_HEAD(self) -> None:
        self._resolve(with_body=False)

    def do_GET(self) -> None:
        self._resolve(with_body=True)

    def do_PUT(self) -> None:
        path, body = self._received()
        self.served.uploads[path.rpartition("/")[2]] = body
        self._answer(200)

    def do_POST(self) -> None:
        path, body = self._received()
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}" if request.get("organization") else request["name"]
            self.served.repositories.setdefault(name, Repository())
            self._json({"url": f"{self.served.url}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"warnings": [], "errors": []})
        elif "/preupload/" in path:
            files = [{**file, "shouldIgnore": False} for file in json.loads(body)["files"]]
            for file in files:
                file["uploadMode"] = "lfs" if file["path"].endswith(".safetensors") else "regular"
            self._json({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{self.served.url}/lfs/{item['oid']}"}}
            self._json({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            repository, _, branch = path.removeprefix("/api/models/").partition("/commit/")
            files = {}
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    files[entry["value"]["path"]] = self.served.uploads[entry["value"]["oid"]]
            oid = self.served.commit(repository, files, branch)
            self._json({"commitUrl": f"{self.served.url}/{repository}/commit/{oid}", "commitOid": oid})
        else:
            self._answer(404)

    def _received(self) -> tuple[str, bytes]:
        path = unquote(urlsplit(self.path).path)
        self.served.requests.append(f"{self.command} {path}")
        if self.served.heard:
            self.served.heard(self.headers)
        return path, self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _resolve(self, with_body: bool) -> None:
        """`/org/repo/resolve/<revision>/<path>`, with the headers by which the client knows commit, hash and size."""
        path, _ = self._received()
        if path.startswith("/api/models/"):  # older clients ask how the repository stores large files
            self._json({"id": path.split("/revision/")[0].removeprefix("/api/models/"), "xetEnabled": False})
            return
        name, found, rest = path.removeprefix("/").partition("/resolve/")
        repository = self.served.repositories.get(name) if found else None
        if repository is None:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
            return
        revision, _, file = rest.partition("/")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return
        body = repository.commits[commit].get(file)
        if body is None:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        large = file.endswith(".safetensors")
        etag = hashlib.sha256(body).hexdigest() if large else hashlib.sha1(body).hexdigest()
        if file in self.served.corrupt:
            body = body[:-1] + bytes([body[-1] ^ 0xFF])
        self._answer(200, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}, body, with_body)

    def _json(self, value: object) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", with_body: bool = True
    ) -> None:
        headers = headers or {}
        asked = self.headers.get("Range")
        if status == 200 and asked and self.headers.get("If-Range") == headers.get("ETag") is not None:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            headers = {**headers, "Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
            status, body = 206, body[first:]
        headers = {**headers, "Content-Length": str(len(body))}
        if self.served.distort and self.command in ("GET", "HEAD"):
            status, headers, body = self.served.distort(self.command, status, headers, body)
            # What is wrong about sizes is seen when the connection ends, and not after a time.
            self.close_connection = True
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if not with_body:
            return
        with contextlib.suppress(OSError):  # the client may go away: some tests are about that
            self.send(body)
