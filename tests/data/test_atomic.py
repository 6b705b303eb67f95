"""Files that appear as a whole or not at all."""

import os

import pytest

from gaitzoo.data.atomic import whole_files


def test_a_file_and_what_is_beside_it(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with whole_files(path) as unfinished:
        assert unfinished.name == path.name
        unfinished.write_text("new")
        unfinished.with_name("model.onnx.data").write_text("weights")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert sorted(made.name for made in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


@pytest.mark.parametrize("when", ["writing", "keeping"])
def test_an_error_leaves_what_was_there(tmp_path, monkeypatch, when):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_):
        raise OSError("no room")

    if when == "keeping":
        monkeypatch.setattr(os, "fsync", fail)

    def write():
        with whole_files(str(path)) as unfinished:
            unfinished.write_text("half")
            if when == "writing":
                fail()

    with pytest.raises(OSError, match="no room"):
        write()
    assert path.read_text() == "old"
    assert [made.name for made in tmp_path.iterdir()] == ["file"]


def test_nothing_written_is_nothing_made(tmp_path):
    with whole_files(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError), whole_files(tmp_path / "nowhere" / "file"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="other systems have other permissions")
def test_others_may_read_private_files(tmp_path):
    before = os.umask(0o022)
    try:
        with whole_files(tmp_path / "file") as unfinished:
            unfinished.touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", ["folder", "device or pipe"])
def test_nothing_but_a_file_is_replaced(tmp_path, kind):
    path = tmp_path / "taken"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(ValueError, match=f"taken, which is a {kind}; name a file"):  # noqa: SIM117
        with whole_files(path):
            pass
    assert path.exists()
    assert not path.is_file()
