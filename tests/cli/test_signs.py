"""Terminals of small encodings get substitutes, and never an exception."""

import io
import sys

import pytest

from grail.cli.main import main
from grail.cli.signs import substitute_signs


def printed(text, encoding, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    substitute_signs()
    found = []
    for stream in (sys.stdout, sys.stderr):
        stream.write(text)
        stream.flush()
        found.append(stream.buffer.getvalue())
    assert found[0] == found[1]
    return found[0].decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "88.0 → 12.0 ± 1.5 \u2013 café 漢", r"88.0 -> 12.0 +/- 1.5 - caf\xe9 \u6f22"),
        ("cp1252", "88.0 → 12.0 ± 1.5 \u2013 café 漢", "88.0 -> 12.0 ± 1.5 \u2013 café \\u6f22"),
        ("latin-1", "→→ \u2013 😀", r"->-> - \U0001f600"),
        ("utf-8", "→ ± 😀 \udcff", r"→ ± 😀 \udcff"),
        ("shift_jis", "→ 漢 é", r"→ 漢 \xe9"),
    ],
)
def test_what_an_encoding_lacks_is_substituted(encoding, text, shown, monkeypatch):
    assert printed(text, encoding, monkeypatch) == shown


def test_streams_that_are_no_files_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    substitute_signs()
    sys.stdout.write("→\n")
    assert sys.stdout.getvalue() == "→\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_the_command_line_prints_any_path(encoding, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stderr", output)
    assert main(["validate", "→漢.yaml"]) == 2
    output.flush()
    assert "->\\u6f22.yaml does not exist" in output.buffer.getvalue().decode(encoding)
