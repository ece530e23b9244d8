"""Write docs/commands.md from the parser: `python tests/scripts/commands.py`."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "commands.md"
HEAD = """# Commands

Written from the parser by `tests/scripts/commands.py`. Exit codes: 0 done; 1 anything else;
2 wrong input, one message per problem; 3 with `--strict`, where a command has it, if the verdict is
not a pass; 4 `grail verify` found a change. Tables and verdicts go to stdout, progress to stderr.
"""


def commands():
    """Return (name, its help in the list, its parser) of each command, in the order of the list."""
    from grail.cli.main import _parser

    (choices,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    helps = {action.dest: action.help or "" for action in choices._choices_actions}
    return [(name, helps.get(name, ""), parser) for name, parser in choices.choices.items()]


def cell(text):
    """Return a text that is one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def named(action):
    """Return an argument as it is typed: its names, and what it takes."""
    if not action.option_strings:
        return str(action.metavar or action.dest.upper())
    takes = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{', '.join(action.option_strings)}{takes}"


def shown(action):
    """Return an argument of the usage line; what may be left out is in brackets."""
    needed = action.required and action.nargs != "?"
    return named(action) if needed else f"[{named(action)}]"


def written():
    """Return the whole page."""
    found = commands()
    lines = [HEAD, "| command | does |", "|---|---|"]
    lines += [f"| [`grail {name}`](#grail-{name}) | {cell(text)} |" for name, text, _ in found]
    for name, text, parser in found:
        actions = [action for action in parser._actions if action.dest != "help"]
        usage = " ".join(map(shown, actions))
        lines += ["", f"## grail {name}", "", f"{text[:1].upper()}{text[1:]}.", ""]
        lines += [f"    grail {name} {usage}".rstrip(), ""]
        if actions:
            lines += ["| argument | meaning |", "|---|---|"]
        for action in actions:
            lines.append(f"| `{cell(named(action))}` | {cell(action.help or '')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    PAGE.write_text(written(), encoding="utf-8")
