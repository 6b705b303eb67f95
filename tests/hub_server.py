"""A small Hub on 127.0.0.1: the routes that huggingface_hub's client uses, and ways to fail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

# Files larger than this live behind a redirect, as on the Hub.
LARGE = 10_000


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Revisions of one repository: commit to files; branches point to commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files, branch="main"):
        everything = {**self.files(branch), **files}
        text = json.dumps([len(self.commits), *sorted(everything)])
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = everything
        self.branches[branch] = name
        return name

    def files(self, revision):
        return self.commits.get(self.branches.get(revision, revision), {})


class HubServer:
    """Serves repositories until the ``with`` block ends.

    Attributes:
        url: The endpoint.
        cdn: Where large files are.
        repositories: Name to :class:`Repository`.
        requests: ``(method, path, Range header)`` of everything that was asked.
        cut_after: Path of a large file to how many bytes come before the connection is cut, once
            per entry of the list.
        lie_about_size: Added to the sizes that are announced.
        answer: A status that every request gets instead, or ``None``.
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: dict[str, list[int]] = {}
        self.lie_about_size = 0
        self.answer: int | None = None
        self.blobs: dict[str, bytes] = {}
        # Two, because the client treats files elsewhere in another way than files here.
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self)) for _ in "12"]
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in self._servers
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Frees the ports: from now on connections are refused."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            if thread.is_alive():
                server.shutdown()
                thread.join(10)
                server.server_close()

    def add(self, repo_id, files, branch="main"):
        """Commits files to a repository, made if needed; returns the commit."""
        repository = self.repositories.setdefault(repo_id, Repository())
        return repository.commit(files, branch)

    def count(self, method, part=""):
        """How many requests had this method and this part in their path."""
        return sum(seen == method and part in path for seen, path, _ in self.requests)


def point_client_at(url, home, monkeypatch):
    """Makes huggingface_hub of this process use a server and a cache of its own."""
    from huggingface_hub import constants, file_download

    new = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        # What came is kept from chunk to chunk; the usual ones are larger than test files.
        "DOWNLOAD_CHUNK_SIZE": 1000,
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
    }
    for name, value in new.items():
        # Older clients do not know all of them, and keep copies of some.
        monkeypatch.setattr(constants, name, value, raising=False)
        monkeypatch.setattr(file_download, name, value, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # The client waits up to half a minute between its attempts.
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def environment(url, home):
    """The same for a process of its own."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _handler_of(hub):
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 10

    def log_message(self, format, *args):
        pass

    def end_headers(self):
        # No connection outlives its answer, or a stopped server would go on answering.
        self.send_header("Connection", "close")
        super().end_headers()

    def do_HEAD(self):
        self._serve()

    def do_GET(self):
        self._serve()

    def do_POST(self):
        self._serve()

    def do_PUT(self):
        self._serve()

    def _serve(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(self._chunks())
        if self.hub.answer is not None:
            self._reply(self.hub.answer, {"error": "asked to fail"})
            return
        for method, pattern, serve in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                serve(self, *found.groups())
                return
        self._reply(404, {"error": f"no such route: {self.command} {path}"})

    def _chunks(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _reply(self, status, content=None, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        if "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code, message, status=404):
        self._reply(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def _resolve(self, repo_id, revision, filename):
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            self._refuse("RepoNotFound", "Repository not found")
            return
        if repository.gated:
            self._refuse("GatedRepo", "Access is restricted", status=403)
            return
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            self._refuse("RevisionNotFound", "Invalid rev id")
            return
        content = repository.commits[commit].get(filename)
        if content is None:
            self._refuse("EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if len(content) <= LARGE:
            headers["ETag"] = f'"{git_hash(content)}"'
            headers["Content-Length"] = str(len(content))
            self._reply(200, content, headers)
            return
        self.hub.blobs[sha256(content)] = content
        headers |= {
            "ETag": f'"{git_hash(content)}"',
            "X-Linked-Etag": f'"{sha256(content)}"',
            "X-Linked-Size": str(len(content) + self.hub.lie_about_size),
            "Location": f"{self.hub.cdn}/cdn/{sha256(content)}/{filename}",
        }
        self._reply(302, b"", headers)

    def _cdn(self, blob, filename):
        content = self.hub.blobs[blob]
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(found[1])
        part = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{blob}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cuts = self.hub.cut_after.get(filename)
        if cuts and self.command == "GET":
            self.wfile.write(part[: cuts.pop(0)])
        elif self.command == "GET":
            self.wfile.write(part)

    def _info(self, repo_id, revision="main"):
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            self._refuse("RepoNotFound", "Repository not found")
            return
        names = [{"rfilename": name} for name in repository.files(revision)]
        sha = repository.branches.get(revision, revision)
        self._reply(200, {"id": repo_id, "modelId": repo_id, "sha": sha, "siblings": names})

    def _create(self):
        if not self.headers.get("Authorization"):
            self._reply(401, {"error": "Invalid username or password."})
            return
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or 'somebody'}/{wanted['name']}"
        self.hub.repositories.setdefault(repo_id, Repository()).commit({})
        self._reply(200, {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id})

    def _preupload(self, repo_id, revision):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs"
                if file["size"] > LARGE and "README" not in file["path"]
                else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._reply(200, {"files": files})

    def _batch(self, repo_id):
        objects = [
            {
                **wanted,
                "authenticated": True,
                "actions": {
                    "upload": {"href": f"{self.hub.cdn}/upload/{wanted['oid']}"},
                    "verify": {"href": f"{self.hub.url}/verify"},
                },
            }
            for wanted in json.loads(self.body)["objects"]
        ]
        self._reply(
            200,
            {"transfer": "basic", "objects": objects},
            {"Content-Type": "application/vnd.git-lfs+json"},
        )

    def _upload(self, blob):
        if sha256(self.body) != blob:
            self._reply(400, {"error": "wrong hash"})
            return
        self.hub.blobs[blob] = self.body
        self._reply(200, b"", {"ETag": f'"{blob}"'})

    def _verify(self):
        wanted = json.loads(self.body)
        there = len(self.hub.blobs.get(wanted["oid"], b"")) == wanted["size"]
        self._reply(200 if there else 404, {})

    def _commit(self, repo_id, branch):
        files = {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        commit = self.hub.add(repo_id, files, branch)
        url = f"{self.hub.url}/{repo_id}/commit/{commit}"
        self._reply(200, {"success": True, "commitUrl": url, "commitOid": commit})

    def _validate(self):
        self._reply(200, {"errors": [], "warnings": []})


_REPO = r"([^/]+/[^/]+)"
_ROUTES = [
    ("HEAD GET", rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler._resolve),
    ("HEAD GET", r"/cdn/([0-9a-f]{64})/(.+)", _Handler._cdn),
    ("GET", rf"/api/models/{_REPO}", _Handler._info),
    ("GET", rf"/api/models/{_REPO}/revision/([^/]+)", _Handler._info),
    ("POST", r"/api/repos/create", _Handler._create),
    ("POST", r"/api/validate-yaml", _Handler._validate),
    ("POST", rf"/api/models/{_REPO}/preupload/([^/]+)", _Handler._preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", r"/upload/([0-9a-f]{64})", _Handler._upload),
    ("POST", r"/verify", _Handler._verify),
    ("POST", rf"/api/models/{_REPO}/commit/([^/]+)", _Handler._commit),
]
