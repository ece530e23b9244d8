"""One byte of a finished run changed, again and again: no command ever uses it.

    python tests/scripts/flips.py --flips 300
    python tests/scripts/flips.py --first 47 --flips 1   # what a find says

A tiny run is made, audited, reported and attested. Then one byte at a random place of a random file
gets another value, and each command is given a fresh copy of that folder. What it does is

- ``named``: exit code 2, or 4 of verify, and the file stands in what it says;
- ``made again``: exit code 0, it says so, and the file is as before;
- ``no influence``: exit code 0 without a word. For verify this is right only where the file still
  says the same, as with another space in JSON.

In the last two all that it prints, and every other file that it leaves, must be what the undamaged
run gives (times apart). All else is a find. Equal numbers make equal flips.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import fuzz
import soak

from grail.cli.main import main as grail
from grail.run import manifest

COMMANDS = ("verify", "report", "audit", "run", "export")
MADE_AGAIN = re.compile(r"made again|making it again", re.IGNORECASE)


class Ended(NamedTuple):
    """How a command ended: exit code, what it printed and said, and the files it left."""

    code: int
    printed: str
    said: str
    files: dict[str, bytes]


class Flips:
    """A finished run, and what each command makes of it undamaged."""

    def __init__(self, folder: Path) -> None:
        world = fuzz.World(folder)
        self.run, self.whole = world.run, folder / "whole"
        if not self.whole.exists():
            world.finish()
            shutil.copytree(self.run, self.whole)
        files = [file for file in sorted(self.whole.rglob("*")) if file.is_file()]
        files = [file for file in files if file.stat().st_size]
        self.names = [file.relative_to(self.whole).as_posix() for file in files]
        self.expected = {command: self._ended(command) for command in COMMANDS}
        for command, ended in self.expected.items():
            if ended.code:
                sys.exit(f"{command}: {ended.said}")

    def flip(self, number: int, seed: int) -> tuple[str, int, dict[str, str]]:
        """Change one byte; return the file, the place, and what each command makes of it."""
        draw = random.Random(f"{seed} {number}")
        name = draw.choice(self.names)
        content = bytearray((self.whole / name).read_bytes())
        at = draw.randrange(len(content))
        content[at] ^= draw.randrange(1, 256)
        flipped = bytes(content)
        return name, at, {c: self._outcome(c, name, flipped) for c in COMMANDS}

    def _outcome(self, command: str, name: str, flipped: bytes) -> str:
        """Return "named", "made again" or "no influence"; else what is wrong."""
        ended, expected = self._ended(command, name, flipped), self.expected[command]
        if "Traceback" in ended.said:
            return f"traceback: {ended.said[-900:]}"
        if ended.code:
            right, folder = (4 if command == "verify" else 2), Path(name).parent
            told = {name, folder.name} if folder.name in manifest.MODELS else {name}
            named = any(word in ended.said for word in ({name} if right == 4 else told))
            if ended.code == right and named:
                return "named"
            return f"exit code {ended.code} without the file's name: {ended.said[-300:]}"
        if command == "verify":
            same = _same(name, (self.whole / name).read_bytes(), flipped)
            return "no influence" if same else "verify finds nothing"
        again, file = MADE_AGAIN.search(ended.said) is not None, self.run / name
        wanted = dict(expected.files)
        if not again and file.exists() and file.read_bytes() == flipped and name in ended.files:
            wanted[name] = ended.files[name]  # it still lies there, and nobody has used it
        names = ended.files.keys() | wanted.keys()
        other = sorted(n for n in names if ended.files.get(n) != wanted.get(n))
        if other or ended.printed != expected.printed:
            return f"other than undamaged: {other[:5]}, {ended.printed[-300:]!r}"
        return "made again" if again else "no influence"

    def _ended(self, command: str, name: str = "", content: bytes = b"") -> Ended:
        """Let a command work on a fresh copy, in which a file holds another content."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.whole, self.run)
        if name:
            (self.run / name).write_bytes(content)
        out, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            try:
                more = ["--adapter", "--output", str(self.run / "out")]
                code = grail([command, str(self.run), *(more if command == "export" else [])])
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except BaseException:
                code = 70
                traceback.print_exc()
        printed = soak.TIMES.sub(b"", out.getvalue().encode()).decode()
        text = " ".join(f"{out.getvalue()}\n{said.getvalue()}".split())
        return Ended(code, printed, text, soak.contents(self.run))


def _same(name: str, one: bytes, other: bytes) -> bool:
    """Tell whether two contents of a file say the same."""
    read = json.loads if name.endswith(".json") else bytes.fromhex
    try:
        first, second = (read(content.decode().strip()) for content in (one, other))
    except ValueError:
        return False
    return first == second and name.endswith((".json", ".key"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first flip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", type=Path, help="folder of the run, made if it is empty")
    options = parser.parse_args()
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = options.world or Path(tempfile.mkdtemp(prefix="grail-flips-", dir=memory))
    folder.mkdir(exist_ok=True)
    counts = {command: Counter[str]() for command in COMMANDS}
    finds: list[str] = []
    began = time.monotonic()
    try:
        flips = Flips(folder)
        for number in range(options.first, options.first + options.flips):
            name, at, outcomes = flips.flip(number, options.seed)
            for command, outcome in outcomes.items():
                found = outcome not in ("named", "made again", "no influence")
                counts[command]["find" if found else outcome] += 1
                if found:
                    replay = f"--seed {options.seed} --first {number} --flips 1"
                    finds.append(f"{command}: {name} byte {at}: {outcome}\n    {replay}")
                    sys.stdout.write(f"{finds[-1]}\n")
            if (number + 1) % 25 == 0:
                sys.stdout.write(f"until {number}: {counts}\n")
            sys.stdout.flush()
    finally:
        if options.world is None:
            shutil.rmtree(folder, ignore_errors=True)
        for command, counted in counts.items():
            sys.stdout.write(f"{command}: {dict(counted)}\n")
    sys.stdout.write(f"{len(finds)} finds, {time.monotonic() - began:.0f} s\n")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
