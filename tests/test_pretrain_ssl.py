"""The example that pretrains without labels runs to its end."""

import importlib.util
import sys
from pathlib import Path

import gaitzoo

EXAMPLE = Path(__file__).parent.parent / "examples" / "pretrain_ssl.py"


def test_a_short_pretraining(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("pretrain_ssl", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    saved, picture = tmp_path / "teacher", tmp_path / "rise.png"
    arguments = ["--people", "2", "--steps", "2", "--batch", "4", "--frames", "4"]
    arguments += ["--output", str(saved), "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", ["pretrain_ssl.py", *arguments])
    example.main()
    assert "zero-shot Rank-1" in capsys.readouterr().out
    assert picture.stat().st_size > 1000
    assert gaitzoo.create_model(f"local-dir:{saved}").num_parts == 15
