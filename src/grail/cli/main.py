"""The command line: arguments in, handlers, messages and exit codes out.

Exit codes: 0 done; 2 the input is wrong; 3 the verdict is not a pass, with --strict; 4 ``verify``
found a change; 1 anything else. Heavy imports happen inside handlers.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from grail import __version__
from grail.cli import validate as validate_command
from grail.cli.allocator import keep_freed
from grail.cli.ask import add_ask
from grail.cli.attest import add_attest
from grail.cli.audit import add_audit
from grail.cli.export import add_export
from grail.cli.init import add_init
from grail.cli.plan import add_plan
from grail.cli.purge import add_purge
from grail.cli.report import add_report
from grail.cli.revert import add_revert
from grail.cli.settings import SettingsParser, add_settings
from grail.cli.signs import plain, substitute_signs
from grail.cli.strict import add_strict, strict_code
from grail.errors import DivergenceError, InputError, LostError

_STAGE_HELP = {
    "run": "all stages; finished ones are skipped, an interrupted run goes on",
    "vanilla": "train the vanilla model (or take it as given)",
    "score": "Stage 1: how important is each entry for each side of each domain",
    "localize": "Stage 2: which entries are frozen",
    "reset": "which entries survive the reset ahead of Stage 3 (unlearning.reset)",
    "unlearn": "Stage 3: unlearn under the mask",
    "evaluate": "measure the vanilla and the unlearned model",
}
COMPARE = "several methods and seeds on one vanilla model: tables, differences, figures"
_KEPT = "What was finished is kept: once this is mended, the same command goes on."
INTERRUPTED = "interrupted. The same command goes on from the last finished stage or saved step."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    substitute_signs()
    options = _parser().parse_args(arguments)
    keep_freed()
    try:
        with _terminated():
            code = options.handler(options)
            sys.stdout.flush()  # a pipe that nobody reads any more is told of here, not at the end
            return code
    except InputError as error:
        for problem in error.problems:
            print(f"grail: error: {plain(problem)}", file=sys.stderr)
        return 2
    except (DivergenceError, LostError) as error:
        print(f"grail: stopped: {plain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"grail: {INTERRUPTED}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `grail report --json RUN | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder without permission, a file that vanished
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        text = plain(f"{where}{error.strerror}")
        print(f"grail: stopped: {text}. {_KEPT}", file=sys.stderr)
        return 1


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: with a message, and everything in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grail", description="Remove knowledge from language models on request, and prove it."
    )
    parser.add_argument("--version", action="version", version=f"grail {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=SettingsParser
    )
    demo = commands.add_parser("demo", help="a small real model and two fictitious domains")
    _add_run_options(demo)
    demo.set_defaults(handler=_demo)
    for name, text in _STAGE_HELP.items():
        stage = commands.add_parser(name, help=text, description=text)
        stage.add_argument("config", type=Path, metavar="CONFIG", help="YAML file or run directory")
        _add_run_options(stage)
        stage.set_defaults(handler=_run)
        if name == "evaluate":
            stage.add_argument(
                "--vanilla-only", action="store_true", help="make, score and measure only vanilla"
            )
            stage.add_argument(
                "--general", action="store_true", help="also general tasks (default: the paper's)"
            )
        if name == "score":
            stage.add_argument(
                "--check", type=_count, metavar="N", help="also compare N samples with the loop"
            )
    compare = commands.add_parser("compare", help=COMPARE, description=COMPARE)
    compare.add_argument("config", type=Path, metavar="CONFIG", help="YAML file of a comparison")
    _add_run_options(compare, "comparison")
    compare.add_argument("--parallel", type=_count, metavar="N", help="cells side by side")
    compare.set_defaults(handler=_compare)
    add_strict(demo, commands.choices["run"])
    added = (add_report, add_audit, add_attest, add_ask, add_export, add_revert, add_purge)
    for add in (add_init, *added, add_settings):
        add(commands)
    _add_run_options(validate_command.add_validate(commands))
    _add_run_options(add_plan(commands))
    env = commands.add_parser("env", help="versions, devices, what is installed")
    env.add_argument("--json", action="store_true", help="machine-readable output on stdout")
    env.set_defaults(handler=_env)
    return parser


def _add_run_options(parser: SettingsParser, settings: str = "run") -> None:
    parser.settings = settings
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting"
    )
    parser.add_argument("--output", metavar="DIR", help="run directory (default: from the config)")
    parser.add_argument("--json", action="store_true", help="machine-readable summary on stdout")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got '{text}'")
    return int(text)


def _demo(options: argparse.Namespace) -> int:
    with resources.as_file(resources.files("grail.config") / "demo.yaml") as file:
        options.config, options.output = file, options.output or "runs/demo"
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from grail.config.file import load_config
    from grail.run import manifest

    manifest.require_settings(options.config)  # damaged ones need not even be settings
    config = load_config(options.config, options.set, options.output)
    if getattr(options, "general", False) and not config.evaluation.general_tasks:
        from grail.config.run import GENERAL_TASKS

        options.set.append(f"evaluation.general_tasks=[{', '.join(GENERAL_TASKS)}]")
        config = load_config(options.config, options.set, options.output)
    from grail.cli.terminal import Terminal, quiet

    quiet()  # before anything heavy is imported: tqdm reads its switch only then
    from grail.run.inputs import read_inputs

    inputs = read_inputs(config)
    from grail.run import refusals

    refusals.refuse_run(config, options.config)
    from grail.run.pipeline import Run

    terminal = Terminal()
    for warning in inputs.warnings:
        terminal.warn(warning)
    run = Run(config, inputs, terminal)
    if run.parts and (getattr(options, "check", None) or getattr(options, "vanilla_only", False)):
        raise InputError(
            "--check and --vanilla-only need the whole model in one process, not FSDP2."
        )
    last = options.command if options.command not in ("run", "demo") else "report"
    run.through("score" if getattr(options, "vanilla_only", False) else last)
    return _ended(options, run, last) if run.accelerator.is_main_process else 0


def _ended(options: argparse.Namespace, run: Any, last: str) -> int:
    """Print what a run's stages have come to, and return the exit code."""
    from grail.cli import output as endings

    folder = Path(run.config.output)
    if getattr(options, "check", None):
        return endings.agreement(run.check_scores(options.check), options.json)
    if getattr(options, "vanilla_only", False):
        file = run.measure_vanilla()
        about = {"output": run.config.output, "evaluate": str(file)}
        print(json.dumps(about) if options.json else f"wrote: {file}")
    elif last in ("evaluate", "report"):
        endings.results(folder, options.json)
        if last == "report" and not options.json:
            endings.reminder(folder)
        return strict_code(options, folder)
    else:
        endings.files(folder, last, options.json)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from grail.comparison.rows import plan_comparison
    from grail.comparison.settings import load_comparison

    if options.parallel is not None:
        options.set.append(f"parallel={options.parallel}")
    plan = plan_comparison(*load_comparison(options.config, options.set, options.output))
    from grail.cli.terminal import Terminal, quiet
    from grail.comparison.compare import run_comparison, validate

    quiet()
    terminal = Terminal()
    for warning in validate(plan):
        terminal.warn(warning)
    found = run_comparison(plan, terminal)
    from grail.cli import output as endings
    from grail.reporting.comparison.files import write_all

    endings.comparison(found, plan.output, options.json, write_all(found, plan.output))
    return 1 if any("failed" in cell for cell in (*found["cells"], *found["grid"])) else 0


def _env(options: argparse.Namespace) -> int:
    from grail.cli.environment import describe_environment

    facts = describe_environment()
    if options.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        print(f"{name:<14} {value}")
    return 0
