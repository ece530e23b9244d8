"""Damaged and hostile inputs by the thousand: each must end in a result or in one clear refusal.

    python tests/scripts/fuzz.py --cases 100000
    python tests/scripts/fuzz.py --only run --first 4711 --cases 1   # what a find says

A case takes one input (settings, an override, a data file, a file of a finished run, an audit, an
attestation, a comparison), changes it, and gives it to what reads it, in this process. It passes if
the reader returns, or raises an ``InputError`` that names the file. All else is a find: its input
is kept in the folder ``--keep``. Equal numbers make equal cases.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import faulthandler
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
import conftest

from grail.cli.main import main as grail
from grail.errors import InputError
from grail.files import SEAL, digest, dump_yaml, parse_yaml

SLOW = 20
"""Seconds after which a case counts as one that never ends."""
SHARES = {"settings": 30, "set": 25, "data": 25, "comparison settings": 8, "run": 9, "results": 3}
"""Kind -> how many of a hundred cases are of it."""
NASTY: list[Any] = [
    None, True, -1, 0, 0.5, 10**30, 1e300, float("nan"), float("-inf"), "", " ", "\0", "x" * 5000,
    "~", "~nobody/x", "../../etc/passwd", "/dev/null", "a/b", "=1+1", "\x1b[31m", "\ud800",
    "é\u2028", "1e-3", "[", "null", "2024-99-99", [], {}, [[]], {"": {}}, {"a.b": 1}, [None, {}],
]  # fmt: skip
TEXTS = [b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"*a ", b"&a ",
         b"!!python/object:os.system ",
         b"<<: *a\n", b": ", b"\n", b"\t", b"{" * 300, b"[" * 3000, b"'", b'"', b"NaN", b"1e999",
         b"- ", b"#", b"---\n", b"\r", b",", b"9" * 5000, b"\xe2\x80\xa8"]  # fmt: skip


class Target(NamedTuple):
    """An input: its file, and what reads it there."""

    file: Path
    read: Callable[[], object]
    name: str = ""
    """Must stand in a refusal; "": the name of the file."""


def mutated(draw: random.Random, content: bytes, kind: str) -> bytes:
    """Change a file in one to three places, as text or in its structure."""
    parse = {"yaml": parse_yaml, "json": json.loads}.get(kind)
    if kind == "jsonl" and draw.random() < 0.7:
        lines = content.split(b"\n")
        place = draw.randrange(len(lines))
        lines[place] = mutated(draw, lines[place], "json") if lines[place] else b"{}"
        return b"\n".join(lines)
    if parse is None or draw.random() < 0.3:
        for _ in range(draw.randint(1, 3)):
            content = _text(draw, content)
        return content
    value = parse(content.decode())
    sealed = isinstance(value, dict) and value.pop(SEAL, None)
    for _ in range(draw.randint(1, 3)):
        value = _structure(draw, copy.deepcopy(value))
    if sealed and isinstance(value, dict):  # as by somebody who knows how the digest is made
        with contextlib.suppress(ValueError):
            value[SEAL] = digest(json.loads(json.dumps(value)))
    for written in (dump_yaml, json.dumps) if kind == "yaml" else (json.dumps,):
        with contextlib.suppress(RecursionError, UnicodeError):  # JSON is YAML too
            return written(value).encode("utf-8", "surrogatepass")
    return content


def _text(draw: random.Random, content: bytes) -> bytes:
    at, length = draw.randrange(len(content) + 1), draw.randint(1, 40)
    bit = bytes([content[at] ^ 1 << draw.randrange(8)]) if at < len(content) else b""
    other = content[(start := draw.randrange(len(content) + 1)) : start + length]
    return content[:at] + draw.choice(
        [
            bit + content[at + 1 :],
            content[at + length :],
            b"",
            draw.choice(TEXTS) + content[at:],
            other + content[at:],
            other + content[at + length :],
        ]
    )


def _structure(draw: random.Random, value: Any) -> Any:
    """Change one place of a nested value: another value, key or order, none, or one more."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.03:
        return _nasty(draw, value)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    if isinstance(value[key], dict | list) and draw.random() < 0.85:
        value[key] = _structure(draw, value[key])
    elif (way := draw.random()) < 0.15:
        del value[key]
    elif way < 0.25 and isinstance(value, dict):
        new = draw.choice([f"{key}x", "", "a.b", f"{key}.x", "x" * 300, "\0", "1"])
        value[new] = value.pop(key)
    elif way < 0.35:
        other = draw.choice(keys)
        value[key], value[other] = value[other], value[key]
    elif way < 0.4 and isinstance(value, list):
        value.append(value[key])
    else:
        value[key] = _nasty(draw, value[key])
    return value


def _nasty(draw: random.Random, old: Any) -> Any:
    if isinstance(old, int | float) and not isinstance(old, bool) and draw.random() < 0.5:
        return draw.choice([-old, old + 1, old * 10**10, str(old), 10**400, 1e308, 2**63, [old]])
    if isinstance(old, str) and draw.random() < 0.4:
        return draw.choice(
            [old * 2, old[:-1], old.upper(), f"{old}\0", f" {old}", f"{old}/../x", [old]]
        )
    if draw.random() < 0.02:
        deep: Any = []
        for _ in range(draw.choice([90, 400])):
            deep = [deep]
        return deep
    return copy.deepcopy(draw.choice(NASTY))


# ---------------------------------------------------------------- what there is to read


class World:
    """A folder with settings, data, a finished run, its audit and attestation, a comparison."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.output = folder, folder / "run", folder / "cmp"
        self.model, self.comparison = folder / "model", folder / "comparison.yaml"
        evaluation = conftest.SMALL["evaluation"] | {"every": 2, "show_text": True}
        self.config = conftest._tiny_config(folder, self.model)(
            rows=3, evaluation=evaluation, audit={"relearn": {"steps": [1]}}
        )
        base = parse_yaml(self.config.read_text())
        del base["output"]
        vary = {"unlearning.learning_rate": [0.01, 0.02]}
        methods = {"one": {}, "two": {"preset": "ascent", "vary": vary}}
        content = {"base": base, "methods": methods, "seeds": [0, 1], "reference": "one"}
        self.comparison.write_text(dump_yaml(content | {"output": str(self.output)}))

    def make(self) -> None:
        """Run everything, unless it is there."""
        if not (self.output / "comparison.json").exists():
            self.finish()
            self._call("compare", str(self.comparison), "--set", "seeds=[0]")

    def finish(self) -> None:
        """Make a run, its audit, its attestation and its report."""
        import tiny

        tokenizer = tiny.tiny_tokenizer()
        model = tiny.tiny_model(lora=False, tied=False, vocabulary=len(tokenizer))
        model.save_pretrained(self.model)
        tokenizer.save_pretrained(self.model)
        run = str(self.run)
        self._call("run", str(self.config))
        self._call("audit", run)
        self._call("attest", run, "--request", "1")
        self._call("report", run)

    def _call(self, *words: str) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = grail(list(words))
        if code:
            sys.exit(f"{words}: {said.getvalue()}")

    def targets(self, kind: str) -> list[Target]:
        """Return the inputs of a kind."""
        if kind in ("run", "results"):
            self.make()
        return {
            "settings": self._settings,
            "comparison settings": self._comparison_settings,
            "data": self._data,
            "run": self._run,
            "results": self._results,
        }[kind]()

    def _settings(self) -> list[Target]:
        return [Target(self.config, lambda: _load(self.config))]

    def _comparison_settings(self) -> list[Target]:
        from grail.comparison.rows import plan_comparison
        from grail.comparison.settings import load_comparison

        file = self.comparison
        return [Target(file, lambda: plan_comparison(*load_comparison(file, [])))]

    def _data(self) -> list[Target]:
        import pyarrow
        import pyarrow.parquet
        from openpyxl import Workbook

        from grail.data.layouts import columns_of
        from grail.data.readers import read_rows
        from grail.data.samples import Place, samples_from

        folder = self.folder / "rows"
        folder.mkdir(exist_ok=True)
        rows = [
            {
                "prompt": f"Who is number {n}?",
                "completion": f'A "man", {n};é\n',
                "paraphrases": ["Who?"],
            }
            for n in range(4)
        ]
        chat = {
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        }
        plain = [{k: v for k, v in row.items() if k != "paraphrases"} for row in rows]
        lines = [json.dumps(row) for row in [*rows, chat, {"question": "a?", "answer": "b"}]]
        (folder / "a.jsonl").write_text("\n".join(lines))
        (folder / "a.json").write_text(json.dumps({"x": {"rows": rows}, "y": 1}))
        for name, mark in (("a.csv", ","), ("b.csv", ";"), ("a.tsv", "\t")):
            cells = [["prompt", "completion"], *([f'"{n}{mark}x"', '"b ""c"""'] for n in "abc")]
            (folder / name).write_text("\n".join(mark.join(line) for line in cells))
        book = Workbook()
        for line in (["prompt", "completion"], *(list(row.values()) for row in plain)):
            book.active.append(line)
        book.save(folder / "a.xlsx")
        table = pyarrow.Table.from_pylist(plain)
        pyarrow.parquet.write_table(table, folder / "a.parquet", compression="none")

        def read(source: str) -> None:
            found = read_rows(source)
            columns_of([row for _, row in found])
            samples_from(found, Place("a", "unlearn", "train"), source)

        inner = {"a.json": "#x.rows"}
        files = sorted(folder.iterdir())
        return [Target(f, lambda f=f: read(f"{f}{inner.get(f.name, '')}")) for f in files]

    def _run(self) -> list[Target]:  # noqa: C901
        """Files whose readers look at the file's own digest or at the manifest first."""
        from grail.artifacts import check, inputs_of, read_mask, read_scores
        from grail.config.file import load_config
        from grail.files import read_json
        from grail.results import read_pace, read_results
        from grail.run import directory, manifest

        def read_all(file: Path) -> None:  # noqa: C901
            name, run = file.relative_to(self.run).as_posix(), self.run
            manifest.problems(run)
            directory.stamp(run / "vanilla")
            inputs_of(file)
            if name.startswith("scores/"):
                read_scores(file)
            elif name.startswith("mask"):
                read_mask(file)
            elif name.endswith(".safetensors") and "model" not in name:
                check(file)
            elif name == "results.json":
                read_results(file)
            elif name.endswith("train.jsonl"):
                read_pace(file)
            elif name == "config.yaml":
                load_config(run)
            elif name.endswith(".json") and not name.startswith(("vanilla", "unlearned")):
                with contextlib.suppress(ValueError):  # what catches this is below
                    read_json(file)
            manifest.require(run, name)
            if name == "manifest.json":
                manifest.entries(run)

        files = [f for f in sorted(self.run.rglob("*")) if f.is_file() and f.name != ".lock"]
        return [Target(f, lambda f=f: read_all(f), _named(f)) for f in files]

    def _results(self) -> list[Target]:
        """What reports, audits and checks read, the manifest written anew after the change."""
        from grail.audit.runs import read_run
        from grail.handover.attest import check_attestation
        from grail.reporting.comparison.files import read_comparison, write_all
        from grail.reporting.run.page import report
        from grail.run import manifest

        names = [*manifest.REPORTED, *manifest.MEASURED]
        run_files = [self.run / name for name in names if (self.run / name).exists()]
        file, compared = self.run / "attestation.json", self.output / "comparison.json"
        found = [Target(f, lambda: report(self.run), _named(f)) for f in run_files]
        log = self.run / "train.jsonl"
        found += [Target(f, lambda: read_run(self.run), _named(f)) for f in (log, run_files[0])]
        measured = [f for f in sorted(self.run.glob("*/*.json")) if b'"values": ' in f.read_bytes()]
        found += [Target(f, lambda f=f: _measured(f)) for f in measured]
        found.append(Target(file, lambda: check_attestation(file, None, None)))

        def table() -> None:
            write_all(read_comparison(self.output) | {"figures": []}, self.output)

        return [*found, Target(compared, table), Target(compared, table)]


def _measured(file: Path) -> None:
    """Read a file of measurements as a run and an audit do."""
    from grail.evaluation.values import values_in
    from grail.files import read_json

    try:
        content = read_json(file)
    except ValueError as error:  # is made again
        raise InputError(str(error)) from error
    values_in(file, content)


def _named(file: Path) -> str:
    return file.parent.name if file.parent.name in ("vanilla", "unlearned") else file.name


def _load(file: Path, overrides: Sequence[str] = ()) -> None:
    """Read settings as ``grail run`` does; what it writes of them can be written."""
    from grail.config.file import load_config

    config = load_config(file, overrides).model_dump(mode="json")
    if config != parse_yaml(dump_yaml(config)):
        raise ValueError("settings are written as others")
    digest(config)


def _override(draw: random.Random, leaves: list[tuple[str, Any]]) -> str:
    key, value = draw.choice(leaves)
    if draw.random() < 0.2:
        key = draw.choice(
            [f"{key}.x", key.rpartition(".")[0], f"{key}.", f".{key}", key[:-1], "", "a..b"]
        )
    value = json.dumps(_structure(draw, copy.deepcopy(value)), default=str, ensure_ascii=False)
    text = f"{key}={value}"
    if draw.random() < 0.3:
        text = _text(draw, text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")
    return text


# ---------------------------------------------------------------- cases


class TooSlowError(BaseException):
    """A case took longer than ``SLOW`` seconds."""


def outcome(read: Callable[[], object], name: str) -> str:
    """Return "read" or "refused"; else what went wrong."""
    silence = io.StringIO()
    signal.alarm(SLOW)
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            read()
    except InputError as error:
        return "refused" if name in str(error) else f"no word of {name!r}: {error}"
    except TooSlowError:
        return f"slower than {SLOW} seconds"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if "grail" in f.filename] or frames
        at = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return f"{type(error).__name__} at {at}: {' '.join(str(error).split())[:150]}"
    finally:
        signal.alarm(0)
    return "read"


def run_case(
    world: World, targets: list[Target], kind: str, number: int, seed: int
) -> tuple[str, Any]:
    """Return the outcome of a case, and its input."""
    draw = random.Random(f"{seed} {kind} {number}")
    if kind == "set":
        text = _override(draw, LEAVES)
        return outcome(lambda: _load(world.config, [text]), ""), text
    target = draw.choice(targets)
    original = target.file.read_bytes()
    suffix = target.file.suffix[1:]
    content = mutated(draw, original, suffix)
    name = target.name or target.file.name
    target.file.write_bytes(content)
    try:
        settings = suffix == "yaml" or kind == "results"
        return outcome(target.read, "" if settings else name), (target.file, content)
    finally:
        target.file.write_bytes(original)


LEAVES: list[tuple[str, Any]] = []


def _too_slow(*_: object) -> None:
    raise TooSlowError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SHARES)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-finds"))
    parser.add_argument("--world", type=Path, help="folder of what is read, made if it is empty")
    options = parser.parse_args()
    faulthandler.enable()
    signal.signal(signal.SIGALRM, _too_slow)
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = options.world or Path(tempfile.mkdtemp(prefix="grail-fuzz-", dir=memory))
    folder.mkdir(exist_ok=True)
    try:
        world = World(folder)
        from grail.config.file import load_config
        from grail.config.merge import flatten

        LEAVES.extend(flatten(load_config(world.config).model_dump(mode="json")))
        shares = {options.only: 100} if options.only else SHARES
        finds = [f for kind, share in shares.items() for f in fuzz(world, kind, share, options)]
    finally:
        if options.world is None:
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{len(finds)} kinds of finds\n" + "".join(f"  {f}\n" for f in finds))
    return 1 if finds else 0


def fuzz(world: World, kind: str, share: int, options: argparse.Namespace) -> list[str]:
    """Run the cases of one kind; print their counts and return the kinds of finds."""
    targets = [] if kind == "set" else world.targets(kind)
    counts: Counter[str] = Counter()
    finds: dict[str, str] = {}
    began = time.monotonic()
    for number in range(options.first, options.first + options.cases * share // 100):
        result, given = run_case(world, targets, kind, number, options.seed)
        if result in ("read", "refused"):
            counts[result] += 1
            continue
        counts["find"] += 1
        place = result.partition(": ")[0]
        if place in finds:
            continue
        options.keep.mkdir(exist_ok=True)
        name, content = "set.txt", given
        if kind != "set":
            name, content = given[0].name, given[1]
        else:
            content = given.encode("utf-8", "surrogateescape")
        (options.keep / f"{kind.replace(' ', '-')}-{number}-{name}").write_bytes(content)
        replay = f"--seed {options.seed} --only '{kind}' --first {number} --cases 1"
        finds[place] = f"{kind}: {name}: {result}\n    {replay}"
    took = time.monotonic() - began
    sys.stdout.write(f"{kind}: {sum(counts.values())} cases, {dict(counts)}, {took:.0f} s\n")
    sys.stdout.flush()
    return list(finds.values())


if __name__ == "__main__":
    sys.exit(main())
