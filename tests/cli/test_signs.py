"""Terminals of small encodings get substitutes, and never an exception."""

import io
import sys

import pytest
from rich.console import Console

from grail.cli.main import main
from grail.cli.signs import plain, substitute_signs
from grail.cli.terminal import Terminal, render
from grail.reporting.tables import Table


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("gnp\u202eexe", "gnp\\u202eexe"),
        ("line\nother\ttab é \u2028", "line\nother\ttab é \u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_its_code(text, shown):
    assert plain(text) == shown


def test_messages_tables_and_warnings_hold_no_control_characters(tmp_path, capsys):
    evil = "\x1b]0;title\x07"
    assert main(["run", str(tmp_path / f"none{evil}.yaml")]) == 2
    assert "\\x1b]0;title\\x07" in (said := capsys.readouterr().err)
    assert "\x1b" not in said
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    Terminal(console).warn(evil)
    console.print(render(Table(evil, (evil,), ((evil,),)), console.width))
    assert stream.getvalue().count("\\x1b]0;title\\x07") == 4
    assert "\x1b" not in stream.getvalue()
