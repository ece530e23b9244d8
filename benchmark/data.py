"""The data sets of the tables, made from their public sources at pinned revisions.

Usage: python benchmark/data.py RAW OUT [--fetch]

RAW holds a checkout of each source, a folder by its name; --fetch clones what is missing, and
without it the commands to do so are printed. OUT gets ``DOMAIN/SIDE_PART.jsonl`` with rows of
``prompt`` and ``completion``, as benchmark/experiments expect them, and ``general/TASK.jsonl`` with
the items of general tasks. data.json says which rows of a source are in which file, in which order,
and the SHA-256 that the file must have.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import general

from grail.errors import InputError
from grail.files import write_text

HERE = Path(__file__).parent
SOURCES = {
    "unlearn": ("zjunlp/unlearn", "0800fd24f071a47958295fb1804906365567695c"),
    "FairytaleQAData": ("uci-soe/FairytaleQAData", "a24ddc17364666b7c13a425b9970c87368b03417"),
    "lume-llm-unlearning": (
        *("amazon-science/lume-llm-unlearning", "b2fa8f9c567715f1e2c6d442213f33b2e9a28fe6"),
    ),
    "closer-look-LLM-unlearning": (
        *("sail-sg/closer-look-LLM-unlearning", "b622294965f8b40feb5383c9e93dbdb26a76b6b3"),
    ),
} | general.SOURCES
"""Folder in RAW -> repository and commit."""

FORMS = ("unwrapped", "lines", "whole", "indented")
"""Of a tale's section: each paragraph on one line, the source's lines with single spaces, as it is,
or paragraphs on one line with the space before them kept."""

Row = dict[str, str]


def knowundo(raw: Path, side: str, part: str, _: Any) -> Iterator[Row]:
    """KnowUnDo's privacy split (MIT): invented persons; whole files, other names of the keys."""
    name = f"{'unlearn' if side == 'unlearn' else 'retention'}_{part}.json"
    text = _text(raw / "unlearn/dataset/KnowUnDo/privacy" / name)
    for row in json.loads(text):
        yield {"prompt": row["text"], "completion": row["labels"]}


def lume(raw: Path, side: str, _: str, rows: list[int]) -> Iterator[Row]:
    """Take rows of LUME (Apache-2.0): passages to go on with, and questions about them."""
    name = "forget" if side == "unlearn" else "retain"
    found = _json_lines(raw / f"lume-llm-unlearning/data/{name}.jsonl")
    yield from ({"prompt": found[n]["input"], "completion": found[n]["output"]} for n in rows)


def tofu(raw: Path, side: str, _: str, rows: list[int]) -> Iterator[Row]:
    """Take rows of TOFU (MIT): questions about invented authors, who are whole on one side."""
    name = "forget10" if side == "unlearn" else "retain90"
    found = _json_lines(raw / f"closer-look-LLM-unlearning/data/tofu/{name}.json")
    yield from ({"prompt": found[n]["question"], "completion": found[n]["answer"]} for n in rows)


def fairytale(raw: Path, side: str, _: str, rows: list[list[Any]]) -> Iterator[Row]:
    """FairytaleQA (Apache-2.0; tales in the public domain): the two sides differ in form.

    Unlearn: [tale, section, form, start, cut, end] of a passage (forms: FORMS);
    retain: [tale, question], with the first answer of the annotators.
    """
    folder = raw / "FairytaleQAData" / "data-by-origin"
    titles = listed()["titles"]
    for tale, number, *place in rows:
        if side == "unlearn":
            form, start, cut, end = place
            section = _table(folder / f"section-stories/{tale}-story.csv")[number]["text"]
            text = passage(section, FORMS[form])
            prompt = f'Continue the passage from the story "{titles[tale]}":\n\n{text[start:cut]}'
            yield {"prompt": prompt, "completion": text[cut:end].strip()}
        else:
            row = _table(folder / f"questions/{tale}-questions.csv")[number]
            prompt = f'Question about the story "{titles[tale]}": {row["question"].strip()}'
            yield {"prompt": prompt, "completion": row["answer1"].strip()}


MAKERS: dict[str, Callable[[Path, str, str, Any], Iterator[Row]]] = {
    "knowundo_privacy": knowundo,
    "copyright_fairytale": fairytale,
    "lume_creative": lume,
    "lume_pii": lume,
    "lume_bio": lume,
    "tofu_authors": tofu,
}
"""Domain -> how its rows are read from RAW."""


@cache
def listed() -> dict[str, Any]:
    """Return data.json: files with their rows and hashes, and the titles of the tales."""
    return json.loads((HERE / "data.json").read_text(encoding="utf-8"))


def passage(text: str, form: str) -> str:
    """Return a section as one of FORMS."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if form in ("unwrapped", "indented"):
        parts = [re.sub(r"\s+", " ", part) for part in re.split(r"\n\s*\n", text.strip())]
        return "\n\n".join(part.strip() if form == "unwrapped" else part for part in parts)
    if form == "lines":
        return "\n".join(re.sub(" +", " ", line).rstrip() for line in text.split("\n"))
    return text


def content(raw: Path, name: str) -> str:
    """Return the text of one file of OUT, such as ``lume_pii/unlearn_train.jsonl``.

    Raises:
        InputError: if the source is missing, or is not that of the pinned revision.
    """
    about = listed()["files"][name]
    try:
        rows = list(_rows(raw, name, about.get("rows")))
    except InputError:
        raise
    except (LookupError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{name}: the source is not that of the pinned revision.") from error
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if (found := hashlib.sha256(text.encode()).hexdigest()) != about["sha256"]:
        raise InputError(
            f"{name}: SHA-256 is {found}, not {about['sha256']}: the source is not that of the "
            "pinned revision. Check it out as printed."
        )
    return text


def _rows(raw: Path, name: str, rows: Any) -> Iterator[Any]:
    if name.startswith("general/"):
        return general.items(raw, Path(name).stem, rows)
    domain, side, part = re.split(r"[/_](?=unlearn|retention|train|val)", name.split(".")[0])
    return MAKERS[domain](raw, "unlearn" if side == "unlearn" else "retain", part, rows)


def commands(raw: Path) -> list[list[str]]:
    """Return the commands that bring what is missing to RAW."""
    found = []
    for folder, (repository, commit) in SOURCES.items():
        if not (raw / folder).exists():
            url, place = f"https://github.com/{repository}", str(raw / folder)
            found += [["git", "clone", url, place], ["git", "-C", place, "checkout", commit]]
    return found


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}). Use --fetch.") from error


@cache
def _json_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in _text(path).split("\n") if line.strip()]


@cache
def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_text(path), newline="")))


def main() -> None:
    """Fetch or say what to fetch; make every file, then write them all."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("raw", type=Path, help="folder of the sources' checkouts")
    parser.add_argument("out", type=Path, help="folder of the data sets")
    parser.add_argument("--fetch", action="store_true", help="clone the sources that are missing")
    options = parser.parse_args()
    missing = commands(options.raw)
    if missing and not options.fetch:
        raise SystemExit("\n".join(["missing:", *map(" ".join, missing), "(or: --fetch)"]))
    for command in missing:
        subprocess.run(command, check=True)
    try:
        made = {name: content(options.raw, name) for name in listed()["files"]}
    except InputError as error:
        raise SystemExit(f"data: error: {error}") from error
    for name, text in made.items():
        write_text(options.out / name, text)
    print(f"wrote {len(made)} files to {options.out}; every hash is as listed")


if __name__ == "__main__":
    main()
