"""A settings file drafted from a model and one or two files of rows, after looking at them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from grail.config.presets import REQUEST
from grail.config.run import parse_config
from grail.config.values import EMBEDDED, HUB
from grail.data.layouts import columns_of
from grail.data.readers import read_rows
from grail.data.samples import Place, samples_from
from grail.errors import InputError
from grail.files import parse_yaml, write_text
from grail.model.sources import find
from grail.run.inputs import read_inputs

GENERAL_FILE = "keep_general.jsonl"
"""What is kept where the user names nothing: general questions, written beside the settings."""

NO_HEADER = (
    "The first line of a table must be a header. Name its columns by --prompt and --completion "
    "where they are called otherwise."
)


class Draft(NamedTuple):
    """The text of a settings file, files to be written beside it, and what was found, in words."""

    text: str
    files: dict[Path, str]
    said: list[str]


def draft(
    output: Path, model: str, unlearn: str, retain: str | None, columns: Mapping[str, str]
) -> Draft:
    """Look at a model and at files, and return settings that ``grail validate`` accepts.

    Nothing is written. Rows that a file lacks are told by the checks of ``grail validate``.

    ``output`` is where the settings are to be written, ``model`` is ``model.name`` (a path is
    relative to the current folder, as the files are), ``unlearn`` are the rows to lose and
    ``retain`` those to keep (None: general questions stand in). ``columns`` are ``data.columns``;
    empty: found by their names, or the only two that there are.

    Raises:
        InputError: if ``output`` exists, or with the problems of model, files and rows.
    """
    folder, files = output.absolute().parent, dict[Path, str]()
    if output.exists():
        raise InputError(f"{output} exists already. Choose another --output, or delete it.")
    sources = {"unlearn": unlearn} | ({"retain": retain} if retain else {})
    rows = {side: read_rows(source) for side, source in sources.items()}
    named = dict(columns) or columns_of([row for _, row in rows["unlearn"]])
    said = []
    for side, source in sources.items():
        try:
            found = samples_from(rows[side], Place("request", side, "train"), source, named)
        except InputError as error:
            raise InputError([*error.problems, *([] if named else [NO_HEADER])]) from error
        keys = {str(key) for _, row in rows[side] if isinstance(row, dict) for key in row}
        counted = f"{len(found)} row{'s' * (len(found) != 1)}"
        said.append(f"{source}: {counted}, {len(keys)} column{'s' * (len(keys) != 1)}")
    if named:
        said += [f"the {key} of a row is its column '{name}'" for key, name in named.items()]
    if not retain:
        sources["retain"], questions = GENERAL_FILE, [row for _, row in read_rows(EMBEDDED)][::2]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in questions]
        files[folder / GENERAL_FILE] = "".join(lines)
        said.append(f"nothing named to keep: {GENERAL_FILE}, {len(lines)} general questions")
    adapter = find(model).adapter is not None
    kind = "an adapter, trained on" if adapter else "all of its weights are trained"
    said.append(f"{model}: {kind}; it is taken as it is")
    paths = {side: _from(folder, source) for side, source in sources.items()}
    if not retain:
        paths["retain"] = GENERAL_FILE
    text = _text(_from(folder, model), adapter, paths, named)
    _check(text, folder, files)
    return Draft(text, files, said)


def write_draft(output: Path, made: Draft) -> None:
    """Write the settings and what stands beside them; a file that is there already is kept."""
    for path, text in made.files.items():
        if not path.exists():
            write_text(path, text)
    write_text(output, made.text)


def _check(text: str, folder: Path, files: Mapping[Path, str]) -> None:
    """Refuse settings that ``grail validate`` would refuse."""
    with TemporaryDirectory() as place:  # what is not written yet is looked at elsewhere
        for path, content in files.items():
            Path(place, path.name).write_text(content, encoding="utf-8")
        sections = parse_yaml(text) | {"output": str(folder / "runs" / "draft")}
        for path in files:
            sections["domains"]["request"]["retain"]["train"] = str(Path(place, path.name))
        read_inputs(parse_config(sections, folder))


def _from(folder: Path, source: str) -> str:
    """Return a source as the settings in ``folder`` must name it: relative if it is below."""
    file = source if Path(os.path.expanduser(source)).exists() else source.rpartition("#")[0]
    path, inner = Path(os.path.expanduser(file)), source[len(file) :]
    if source.startswith(HUB) or source == EMBEDDED or not file or not path.exists():
        return source
    absolute = path.absolute()
    below = absolute.is_relative_to(folder) and absolute != folder
    return (f"./{absolute.relative_to(folder)}" if below else str(absolute)) + inner


def _text(model: str, adapter: bool, paths: Mapping[str, str], columns: Mapping[str, Any]) -> str:
    """Return the commented settings; values are quoted as JSON, which is YAML."""
    quoted: dict[str, str] = {key: json.dumps(v, ensure_ascii=False) for key, v in paths.items()}
    own = [] if adapter else ["  lora: null  # train all weights; leave it out to train an adapter"]
    data = [f"  columns: {json.dumps(dict(columns), ensure_ascii=False)}"] if columns else []
    return "\n".join(
        [
            "# Made by grail init. Next: grail validate, grail run, grail audit, grail attest.",
            "# Every key and its default: grail settings",
            "model:  # taken as it is; rows are taught first only where teach: is given",
            f"  name: {json.dumps(model, ensure_ascii=False)}",
            *own,
            "domains:",
            "  request:",
            "    unlearn:",
            f"      train: {quoted['unlearn']}  # all of these rows are unlearned",
            "      # val: FILE      # the same facts asked in other words: only measured",
            "      # heldout: FILE  # such rows about others, which the model never saw: measured",
            "    retain:",
            f"      train: {quoted['retain']}  # these are kept",
            "      # val: FILE      # more that must stay: only measured",
            "# check:  # rows that are measured before and after, and never trained",
            "#   neighbours: {rows: FILE}",
            *(["data:", *data] if data else []),
            "general: {train: embedded}  # general questions, to see harm to everything else",
            f"preset: {REQUEST}  # learn what a model would say that never knew; until forgotten",
            "evaluation:",
            "  show_text: false  # true writes prompts and answers to the report",
            "  # neighbours: 32  # what the model says by itself about other things: only measured",
            "",
        ]
    )
