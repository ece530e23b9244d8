"""``grail ask``: its arguments and the conversation; heavy imports happen inside the handler."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from grail.errors import InputError

_ABOUT = "ask the model before and after unlearning, and show their answers beside each other"
_MORE = "Without QUESTION it asks for one after the other; Ctrl-D or Ctrl-C ends it."
_WIDTH = 8


def add_ask(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser("ask", help=_ABOUT, description=f"{_ABOUT}. {_MORE}")
    parser.add_argument("folder", type=Path, metavar="RUNDIR", help="directory of a finished run")
    parser.add_argument("question", nargs="?", metavar="QUESTION", help="what to ask")
    oracle = "run of preset exact, whose model answers too"
    parser.add_argument("--oracle", type=Path, metavar="RUNDIR2", help=oracle)
    most = "the most tokens of an answer (default: 200)"
    parser.add_argument("--max-tokens", type=int, default=200, metavar="N", help=most)
    sample = "draw answers at temperature 1 instead of taking the most probable"
    parser.add_argument("--sample", action="store_true", help=sample)
    parser.add_argument("--json", action="store_true", help="an object per question on stdout")
    parser.set_defaults(handler=_handle)


def _handle(options: argparse.Namespace) -> int:
    if options.max_tokens < 1:
        raise InputError(f"--max-tokens: give 1 or more, not {options.max_tokens}.")
    from grail.cli.terminal import quiet

    quiet()
    from grail.handover.ask import BEFORE, answers, open_talk

    talk = open_talk(options.folder, options.oracle, options.max_tokens, options.sample)
    if BEFORE not in talk.weights:
        sys.stderr.write("The model before was purged: only what is left answers.\n")
    if options.question is not None:
        _answer(options, talk, options.question, 0, answers)
        return 0
    with suppress(KeyboardInterrupt, EOFError):
        for number, question in enumerate(_questions(options.json)):
            try:
                _answer(options, talk, question, number, answers)
            except InputError as error:
                sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
    sys.stdout.write("" if options.json else "\n")
    return 0


def _answer(options: argparse.Namespace, talk: Any, question: str, number: int, ask: Any) -> None:
    """Show the answers to a question as they come, or as one line of JSON."""
    show = (lambda *_: None) if options.json else _shower()
    found = ask(talk, question, number, show)
    line = json.dumps({"question": question, **found}) if options.json else ""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _questions(as_json: bool) -> Iterator[str]:
    """Yield what is typed, or the lines of a pipe, until the end of the input."""
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  # arrows and earlier questions
        while True:
            if line := input("? ").strip():
                yield line
    for line in filter(None, map(str.strip, sys.stdin)):
        if not as_json:
            sys.stdout.write(f"? {line}\n")
        yield line


def _shower() -> Any:
    """Return what writes answers, each after the name of its model; later lines are indented."""
    begun, between = False, ""

    def show(name: str, piece: str) -> None:
        nonlocal begun, between
        if not piece:
            sys.stdout.write(f"{between}{name:<{_WIDTH}}")
            begun, between = False, "\n"
        text = piece if begun else piece.lstrip()
        begun = begun or bool(text)
        signs = (c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
        sys.stdout.write("".join(signs).replace("\n", "\n" + " " * _WIDTH))
        sys.stdout.flush()

    return show
