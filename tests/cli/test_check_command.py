import numpy as np
import pytest
from PIL import Image

from gaitzoo.cli.entry import main
from gaitzoo.synthetic import render_walk, sample_identity


@pytest.fixture
def clips(tmp_path):
    frames = render_walk(sample_identity(5), frames=26, size=(120, 160), aligned=False)
    frames = frames.silhouettes.numpy()
    folder = tmp_path / "clips"
    for name in ("ann", "bob", "cleo"):
        (folder / name).mkdir(parents=True)
    np.save(folder / "ann" / "clean.npy", frames)
    np.save(folder / "bob" / "inverted.npy", 255 - frames)
    np.save(folder / "cleo" / "ids.npy", frames // 255 * 2)
    return folder


def test_lists_findings_and_draws_them(clips, tmp_path, capsys):
    picture = tmp_path / "doubtful.png"
    assert main(["check", str(clips), "--picture", str(picture)]) == 2
    said = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in said.out.splitlines()[2:5]}
    assert rows["ann/clean"][1:] == ["26", "120", "x", "160", "fine"]
    assert rows["bob/inverted"][-2:] == ["doubtful", "inverted"]
    assert rows["cleo/ids"][-3:] == ["refused", "class", "ids"]
    assert "frames == id" in said.out
    assert "1 of 3 sequence(s) would be refused" in said.err
    with Image.open(picture) as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert (222, 66, 44) in colours  # a red border
    assert main(["check", str(clips), "--picture", str(picture)]) == 2
    assert "exists" in capsys.readouterr().err


def test_clean_clips_end_well(clips, tmp_path, capsys):
    picture = tmp_path / "doubtful.png"
    assert main(["check", str(clips / "ann" / "clean.npy"), "--picture", str(picture)]) == 0
    assert "no picture" in capsys.readouterr().out
    assert not picture.exists()


def test_what_cannot_be_read_is_a_finding(tmp_path, capsys):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "0.png").write_bytes(b"no image")
    assert main(["check", str(tmp_path)]) == 2
    assert "readable image" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "gone")]) == 2
    assert "does not exist" in capsys.readouterr().err
