"""Weights at plain addresses: resumed, recorded, refused."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from builders import make

import gaitzoo
from gaitzoo.hub import release
from gaitzoo.hub.reading import WrongFileError
from gaitzoo.hub.release import check_address, download_release
from gaitzoo.models import registry


class Server:
    """Serves files by path; ``cut`` ends the next answer early, ``redirect`` sends it elsewhere."""

    def __init__(self):
        self.files, self.ranges = {}, []
        self.cut, self.redirect, self.announced = None, None, None
        self.etag = '"first"'
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                server.ranges.append(wanted)
                if server.redirect and self.path == "/moved.pt":
                    self.send_response(302)
                    self.send_header("Location", server.redirect)
                    self.end_headers()
                    return
                if self.path not in server.files:
                    self.send_error(404)
                    return
                body = server.files[self.path]
                if self.headers.get("If-Range") not in (None, server.etag):
                    wanted = None
                begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                if begin >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(server.announced or len(body) - begin))
                if server.etag:
                    self.send_header("ETag", server.etag)
                self.end_headers()
                end, server.cut = server.cut, None
                self.wfile.write(body[begin:] if end is None else body[begin:end])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(release.constants, "HF_HUB_OFFLINE", False)
    with Server() as running:
        yield running


@pytest.fixture
def wired(server, tmp_path, monkeypatch):
    """A model whose weights lie on the server, as its authors write them."""
    monkeypatch.setattr(registry, "_ARCHITECTURES", dict(registry._ARCHITECTURES))
    model = make("gaitbase_tiny", num_classes=3)
    path = tmp_path / "weights.pt"
    torch.save({"model": model.state_dict()}, path)
    server.files["/weights.pt"] = path.read_bytes()
    entry = registry.find_architecture("gaitbase_tiny")
    cfg = gaitzoo.PretrainedCfg(
        num_classes=3,
        input_size=(16, 12),
        model_args=entry.cfgs["test"].model_args,
        url=f"{server.url}/weights.pt",
        filename="weights.pt",
        license="apache-2.0",
    )
    gaitzoo.register_model("wired", entry.build, {"release": cfg})
    return model, registry.find_architecture("wired").cfgs["release"]


def load(cache):
    return gaitzoo.create_model("wired", pretrained=True, cache_dir=cache).eval()


@torch.no_grad()
def test_downloaded_once_and_never_again(wired, server, tmp_path):
    model, _ = wired
    clip = torch.rand(1, 4, 16, 12)
    for _ in range(2):
        assert torch.equal(load(tmp_path / "cache")(clip).embeddings, model(clip).embeddings)
    assert server.ranges == [None]


def test_interrupted_downloads_go_on(wired, server, tmp_path):
    _, cfg = wired
    server.cut = 1000
    with pytest.raises(ConnectionError, match=r"ended after 1000 of .* call again"):
        download_release(cfg, tmp_path)
    path = download_release(cfg, tmp_path)
    assert path.read_bytes() == server.files["/weights.pt"]
    assert server.ranges == [None, "bytes=1000-"]
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.parametrize("etag", ['"second"', None])
def test_a_file_that_was_replaced_meanwhile_begins_again(wired, server, tmp_path, etag):
    _, cfg = wired
    if etag is None:
        server.etag = None
    server.cut = 1000
    with pytest.raises(ConnectionError):
        download_release(cfg, tmp_path)
    server.etag = etag
    server.files["/weights.pt"] = server.files["/weights.pt"][::-1]
    path = download_release(cfg, tmp_path)
    assert path.read_bytes() == server.files["/weights.pt"]
    assert not list(tmp_path.rglob("*.etag"))


def test_the_first_hash_is_compared_ever_after(wired, tmp_path):
    _, cfg = wired
    path = download_release(cfg, tmp_path)
    assert path.with_name("weights.pt.sha256").is_file()
    changed = bytearray(path.read_bytes())
    changed[500] ^= 1
    path.write_bytes(changed)
    with pytest.raises(WrongFileError, match="when it first came"):
        load(tmp_path)


def test_another_structure_is_refused(wired, server, tmp_path):
    other = tmp_path / "other.pt"
    torch.save({"model": make("gaitbase_tiny", channels=(2, 2, 2, 2)).state_dict()}, other)
    server.files["/weights.pt"] = other.read_bytes()
    with pytest.raises(ValueError, match="exactly the parameters"):
        load(tmp_path / "cache")


def test_code_in_a_file_is_refused(wired, server, tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"model": {"x": threading.Thread}}, path)
    server.files["/weights.pt"] = path.read_bytes()
    with pytest.raises(ValueError, match=r"refused to read|Thread"):
        load(tmp_path / "cache")


@pytest.mark.usefixtures("wired")
def test_redirects(server, tmp_path):
    moved = gaitzoo.PretrainedCfg(url=f"{server.url}/moved.pt", filename="moved.pt")
    server.redirect = f"{server.url}/weights.pt"
    assert download_release(moved, tmp_path / "a").read_bytes() == server.files["/weights.pt"]
    server.redirect = "http://example.com/weights.pt"
    with pytest.raises(ValueError, match="expected an https address"):
        download_release(moved, tmp_path / "b")


def test_sizes_are_limited(wired, server, tmp_path, monkeypatch):
    _, cfg = wired
    monkeypatch.setattr(release, "_MOST_BYTES", 100)
    with pytest.raises(WrongFileError, match="at most 100 bytes"):
        download_release(cfg, tmp_path / "cache")
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.suffix for path in kept] == [".lock"]


def test_missing_files_and_no_network(wired, server, tmp_path, monkeypatch):
    _, cfg = wired
    server.files.clear()
    with pytest.raises(FileNotFoundError, match="no file at"):
        download_release(cfg, tmp_path)
    monkeypatch.setattr(release.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        download_release(cfg, tmp_path)


@pytest.mark.parametrize("url", ["http://example.com/x.pt", "ftp://host/x", "file:///etc/passwd"])
def test_only_https(url):
    with pytest.raises(ValueError, match="expected an https address"):
        check_address(url)
    check_address("https://example.com/x.pt")
