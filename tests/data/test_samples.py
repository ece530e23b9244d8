import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import grail
from grail.config import parse
from grail.data.samples import Sample, data_digest, load_general, load_samples, read_rows
from grail.errors import InputError

ROWS = [{"prompt": f"Who is {n}?", "completion": f" Person {n}\n"} for n in range(4)]
TEXTS = [(row["prompt"], row["completion"]) for row in ROWS]


def as_jsonl(rows, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(data)
        return str(path)

    return write


@pytest.fixture
def good(put):
    return put("good.jsonl", as_jsonl(ROWS))


def config(source, other=None, general=None, **data):
    sides = {"unlearn": {"train": source}, "retain": {"train": other or source}}
    return parse(
        {"domains": {"d": sides}, "general": {"train": general}, "data": data, "output": "out"}
    )


def load(source):
    return load_general(config(source, general=source))


def failure(source):
    with pytest.raises(InputError) as caught:
        load(source)
    return str(caught.value)


def texts(samples):
    return [(sample.prompt, sample.completion) for sample in samples]


# --- order, keys, limits


def test_domains_sides_and_parts_come_in_the_order_of_the_configuration(put):
    parts = {"unlearn": ("train", "val", "heldout"), "retain": ("train", "val")}
    names = [f"{d}.{s}.{p}" for d in "zab" for s in parts for p in parts[s]]
    files = {n: put(f"{n}.jsonl", as_jsonl([{"prompt": n, "completion": "x"}] * 2)) for n in names}
    domains = {
        d: {s: {p: files[f"{d}.{s}.{p}"] for p in reversed(parts[s])} for s in reversed(parts)}
        for d in "zab"
    }
    samples = load_samples(parse({"domains": domains, "output": "out"}))
    assert [sample.key for sample in samples] == [f"{n}.{row}" for n in names for row in (0, 1)]
    assert all(sample.key.startswith(sample.prompt) for sample in samples)


def test_a_part_that_is_not_given_has_no_samples(good):
    assert {sample.part for sample in load_samples(config(good))} == {"train"}


def test_max_rows_counts_for_each_part_and_for_general(good):
    made = config(good, general=good, max_rows=3)
    assert [sample.key for sample in load_samples(made)] == [
        f"d.{side}.train.{row}" for side in ("unlearn", "retain") for row in range(3)
    ]
    general = [sample.key for sample in load_general(made)]
    assert general == [f"general.general.{('train', 'val')[row % 2]}.{row}" for row in range(3)]


def test_rows_beyond_max_rows_are_still_checked(put):
    bad = put("bad.jsonl", as_jsonl([*ROWS, {"prompt": "p"}]))
    with pytest.raises(InputError, match="line 5: no known layout"):
        load_samples(config(bad, max_rows=1))


def test_no_general_text_is_allowed():
    assert load_general(config("unused", general=None)) == []


def test_samples_are_immutable():
    with pytest.raises(AttributeError):
        Sample("d", "unlearn", "train", 0, "p", "c").row = 1  # type: ignore[misc]


# --- layouts


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": " p\n", "completion": "\tc "},
        {"question": " p\n", "answer": "\tc ", "id": 3},
        {"text": " p\n", "labels": "\tc "},
        {
            "messages": [
                {"role": "user", "content": " p\n"},
                {"role": "assistant", "content": "\tc ", "name": None},
            ]
        },
        {"text": 1, "prompt": " p\n", "completion": "\tc "},
    ],
)
def test_every_layout_keeps_the_text_exactly(put, row):
    (sample,) = load(put("a.jsonl", as_jsonl([row])))
    assert (sample.prompt, sample.completion, sample.context) == (" p\n", "\tc ", ())


def test_layouts_may_differ_from_row_to_row(put):
    rows = [{"prompt": "a", "completion": "b"}, {"question": "c", "answer": "d"}]
    assert texts(load(put("a.jsonl", as_jsonl(rows)))) == [("a", "b"), ("c", "d")]


def test_earlier_turns_are_the_context(put):
    turns = [("system", "s"), ("user", "u1"), ("assistant", ""), ("user", "u2"), ("assistant", "a")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (sample,) = load(put("a.jsonl", as_jsonl([row])))
    assert (sample.prompt, sample.completion) == ("u2", "a")
    assert sample.context == tuple(turns[:3])


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "answer": "s"}, "no known layout; keys found: answer, prompt."),
        ({"SECRET": "p", "labels": "SECRET"}, "no known layout; keys found: labels, 1 others."),
        ({}, "no known layout; keys found: none."),
        (["SECRET"], "a row must be an object with named values, got list."),
        ({"question": "q", "answer": 3}, "answer must be text, got int."),
        ({"prompt": None, "completion": "c"}, "prompt must be text, got NoneType."),
        ({"text": "q", "labels": " \n"}, "labels is empty."),
        ({"prompt": "p", "completion": "\ud800"}, "completion holds half a surrogate pair"),
        ({"messages": "SECRET"}, "messages must be a list of turns, got str."),
        (chat(), "must end in a user and an assistant turn, got no turns."),
        (chat(("assistant", "a")), "assistant turn, got assistant."),
        (chat(("user", "SECRET")), "assistant turn, got user."),
        (chat(("assistant", "a"), ("user", "b")), "assistant turn, got assistant and user."),
        (chat(("system", "a"), ("assistant", "b")), "assistant turn, got system and assistant."),
        (chat(("tool", "a")), "messages[0] must have content, and a role out of system, user,"),
        (chat((["user"], "a")), "messages[0] must have content, and a role"),
        ({"messages": ["SECRET"]}, "messages[0] must have content, and a role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content must be text, got NoneType."),
        (chat(("user", "a"), ("assistant", " ")), "messages[1].content is empty."),
    ],
)
def test_a_malformed_row_is_named_without_its_text(put, row, expected):
    source = put("a.jsonl", as_jsonl([ROWS[0]]) + json.dumps(row) + "\n")
    message = failure(source)
    first, last = message.split("\n")
    assert first.startswith(f"general.train: {source} line 2: ")
    assert expected in first
    assert last.startswith(f"general.train: {source}: allowed: ")
    for layout in ('{"prompt", "completion"}', '{"question", "answer"}', '{"text", "labels"}'):
        assert layout in last
    assert "SECRET" not in message


@pytest.mark.parametrize(("bad", "more"), [(5, None), (6, 1), (12, 7)])
def test_the_first_five_malformed_rows_are_listed_and_the_rest_counted(put, bad, more):
    source = put("a.jsonl", as_jsonl([ROWS[0], *[{"x": 1}] * bad]))
    lines = failure(source).split("\n")
    assert [f"line {n}:" in line for n, line in zip(range(2, 7), lines, strict=False)] == [True] * 5
    assert ("more malformed" in "\n".join(lines)) == (more is not None)
    assert more is None or f"and {more} more malformed rows." in lines[5]
    assert len(lines) == (6 if more is None else 7)


def test_problems_of_all_sources_come_in_one_error(put, tmp_path):
    missing, folder = str(tmp_path / "no.jsonl"), str(tmp_path)
    made = parse(
        {
            "domains": {
                "privacy": {
                    "unlearn": {"train": missing, "val": put("e.jsonl", "")},
                    "retain": {"train": folder, "val": put("ok.jsonl", as_jsonl(ROWS))},
                },
                "b": {"unlearn": {"train": put("a.txt", "x")}, "retain": {"train": missing}},
            },
            "output": "out",
        }
    )
    with pytest.raises(InputError) as caught:
        load_samples(made)
    lines = str(caught.value).split("\n")
    assert [line.split(": ")[0] for line in lines] == [
        "domains.privacy.unlearn.train",
        "domains.privacy.unlearn.val",
        "domains.privacy.retain.train",
        "domains.b.unlearn.train",
        "domains.b.retain.train",
    ]
    assert f"{missing} does not exist. Correct the path" in lines[0]
    assert "e.jsonl is empty. A side needs at least one row" in lines[1]
    assert f"{folder} is a folder. Give one file: *.jsonl, *.json, *.csv, *.parquet" in lines[2]
    assert "a.txt is of no known kind. Allowed: *.jsonl" in lines[3]


@pytest.mark.parametrize(
    ("name", "hint"), [("embeded", "'embedded'"), ("a.jsnl", "'.jsonl'"), ("a.parquett", "parquet")]
)
def test_a_misspelled_source_gets_a_hint(name, hint):
    message = failure(f"/nowhere/{name}")
    assert "Did you mean" in message
    assert hint in message


@pytest.mark.parametrize("source", ["/" + "x" * 5000 + ".jsonl", "a\0b.jsonl"])
def test_an_impossible_path_is_a_missing_file(source):
    assert "does not exist" in failure(source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(good):
    Path(good).chmod(0)
    assert "cannot be read (Permission denied)" in failure(good)


# --- JSON lines


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n \t\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_jsonl_line_ends_blank_lines_and_bom(put, name, end, bom):
    samples = load(put(name, bom + as_jsonl(ROWS, end).encode()))
    assert texts(samples) == TEXTS
    assert [sample.row for sample in samples] == [0, 1, 2, 3]


def test_jsonl_without_a_last_line_end(put):
    assert texts(load(put("a.jsonl", as_jsonl(ROWS).rstrip("\n")))) == TEXTS


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "é", "漢", "😀", "\u00a0"])
def test_unicode_inside_a_string_does_not_split_the_row(put, letter):
    row = {"prompt": f"a{letter}b", "completion": f"{letter}c{letter}"}
    assert texts(load(put("a.jsonl", as_jsonl([row, row])))) == [tuple(row.values())] * 2


def test_invalid_json_names_the_line_of_the_file(put):
    source = put("a.jsonl", "\n" + as_jsonl(ROWS[:1]) + '\n{"prompt": "a" "b"}\n{"x\n')
    lines = failure(source).split("\n")
    expected = f"general.train: {source} line 4: not valid JSON (Expecting ',' delimiter)."
    assert lines[0] == expected
    assert f"{source} line 5: not valid JSON (Unterminated string" in lines[1]


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000])
def test_hostile_json_is_an_input_error(put, content):
    assert "line 1: not valid JSON (" in failure(put("a.jsonl", content))
    assert "line 1: not valid JSON (" in failure(put("a.json", content))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_text_that_is_not_utf8_names_the_line(put, name):
    message = failure(put(name, as_jsonl(ROWS[:2]).encode() + b'{"prompt": "caf\xe9"}\n'))
    assert f"{name} line 3: not UTF-8. Save the file as UTF-8." in message


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ""), ("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.csv", ""), ("a.csv", "prompt,x")],
)
def test_an_empty_source(put, name, content):
    assert f"{name} is empty. A side needs at least one row of " in failure(put(name, content))


# --- JSON


def test_json_list_as_knowundo_ships_it(put):
    rows = [{"text": prompt, "labels": completion} for prompt, completion in TEXTS]
    samples = load(put("a.json", json.dumps(rows, indent=1)))
    assert texts(samples) == TEXTS


def test_json_nested_list_by_dotted_key(put):
    nested = {"train": {"unlearn": ROWS, "retention": ROWS[:1]}, "val": ROWS[1:2]}
    source = put("a.json", b"\xef\xbb\xbf" + json.dumps(nested).encode())
    assert texts(load(f"{source}#train.unlearn")) == TEXTS
    assert texts(load(f"{source}#val")) == TEXTS[1:2]
    assert "a.json: not a list of rows. Pick a list by FILE.json#KEY.KEY; here: train, val." in (
        failure(source)
    )
    assert "a.json#train: no key 'forget'. " in failure(f"{source}#train.forget")
    assert "here: unlearn, retention." in failure(f"{source}#train.forget")
    assert "a.json#train: not a list of rows. " in failure(f"{source}#train")
    assert "a.json#val must be a list of rows, got list" in failure(f"{source}#val.deeper")
    assert "#nothing" in failure(f"{source}s#nothing")


def test_json_errors_name_file_and_line_or_row(put):
    assert "a.json line 2: not valid JSON (Expecting value)." in failure(put("a.json", "[\n}"))
    assert "a.json must be a list of rows, got int." in failure(put("a.json", "3"))
    assert "b.json row 1 (from 0): no known layout; keys found: 1 others." in (
        failure(put("b.json", json.dumps([ROWS[0], {"x": 1}])))
    )
    assert "name it *.jsonl" in failure(put("a.json", as_jsonl(ROWS)))


# --- CSV


def write_csv(path, rows, **options):
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as stream:
        csv.writer(stream, **options).writerows(rows)
    return str(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("names", [("prompt", "completion"), ("question", "answer")])
def test_csv_keeps_text_exactly(tmp_path, end, encoding, names):
    cells = [(' a, "b"\r\nc\n', "\u2028d\x85"), ("e\n\nf", " g "), ("", "h")]
    rows = [("id", *names), *((n, *row) for n, row in enumerate(cells))]
    source = write_csv(tmp_path / "a.csv", rows, lineterminator=end, encoding=encoding)
    assert texts(load(source)) == cells


def test_csv_skips_blank_lines_and_names_the_line_where_a_row_starts(put):
    content = 'prompt,completion\n\n"two\nlines",ok\n"x\ny",\na,b,c\n\nd\n'
    lines = failure(put("a.csv", content)).split("\n")
    assert "a.csv line 5: completion is empty." in lines[0]
    assert "a.csv line 7: 3 cells under 2 names. Quote text with commas." in lines[1]
    assert "a.csv line 9: 1 cells under 2 names." in lines[2]


def test_csv_with_an_open_quote_or_other_columns(put):
    open_quote = put("a.csv", 'prompt,completion\na,b\n"c,d\ne,f\n')
    assert "a.csv line 3: not valid CSV (unexpected end of data)." in failure(open_quote)
    semicolons = failure(put("a.csv", "prompt;completion\na;b\n"))
    assert "a.csv line 2: no known layout; keys found: 1 others." in semicolons


def test_a_csv_without_a_header_keeps_its_first_row_to_itself(put):
    message = failure(put("a.csv", "Who is SECRET?,SECRET lives there\nq,a\n"))
    assert "a.csv line 2: no known layout; keys found: 2 others." in message
    assert "SECRET" not in message


# --- Parquet


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def test_parquet_pairs_and_messages(tmp_path):
    assert texts(load(write_parquet(tmp_path / "a.parquet", ROWS))) == TEXTS
    rows = [chat(("system", "s"), ("user", "q"), ("assistant", "a"))] * 2
    samples = load(write_parquet(tmp_path / "b.parquet", rows))
    assert texts(samples) == [("q", "a")] * 2
    assert samples[0].context == (("system", "s"),)


def test_parquet_errors(tmp_path, put):
    broken = failure(put("a.parquet", "not parquet"))
    assert "a.parquet is not a readable Parquet file (" in broken
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}]
    message = failure(write_parquet(tmp_path / "b.parquet", rows))
    assert "b.parquet row 1 (from 0): completion must be text, got NoneType." in message
    assert "b.parquet row 0" not in message


# --- Hub


@pytest.fixture
def hub(monkeypatch):
    import datasets

    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        return datasets.Dataset.from_list([{"question": p, "answer": c, "n": 1} for p, c in TEXTS])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


@pytest.mark.parametrize(
    ("source", "config_name", "split"),
    [
        ("hub:o/n", None, "train"),
        ("hub:o/n:cfg", "cfg", "train"),
        ("hub:o/n:cfg:test", "cfg", "test"),
        ("hub:o/n::test", None, "test"),
        ("hub:o/n:cfg:train[:10]", "cfg", "train[:10]"),
    ],
)
def test_hub_names(hub, source, config_name, split):
    assert texts(load(source)) == TEXTS
    assert hub == [(("o/n", config_name), {"split": split})]


@pytest.mark.parametrize("source", ["hub:", "hub:name", "hub:a/b/c", "hub:a /b", "hub:/b"])
def test_a_malformed_hub_name_is_refused_without_the_network(hub, source):
    assert f"{source} is not a Hub dataset. Write hub:OWNER/NAME" in failure(source)
    assert hub == []


def test_a_hub_failure_names_the_data_set_and_what_else_is_possible(monkeypatch):
    import datasets

    def load_dataset(*args, **options):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = failure("hub:o/n")
    assert message.startswith("general.train: hub:o/n: the Hub dataset o/n could not be loaded")
    for part in ("ConnectionError: no route", "network", "cache", "*.jsonl", "embedded"):
        assert part in message
    assert "\n" not in message


def test_a_malformed_hub_row_is_named(monkeypatch):
    import datasets

    table = datasets.Dataset.from_list([{"a": "x"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: table)
    assert "hub:o/n row 0 (from 0): no known layout; keys found: 1 others." in failure("hub:o/n")


# --- embedded


@pytest.fixture
def embedded(monkeypatch):
    module = pytest.importorskip("grail.data.embedded")
    monkeypatch.setattr(
        module, "rows", lambda *place: [{"prompt": ".".join(place), "completion": "c"}]
    )
    monkeypatch.setattr(module, "general_rows", lambda: [{"prompt": "g", "completion": "h"}])


def test_embedded_rows_are_those_of_domain_side_and_part(embedded):
    part = {"train": "embedded", "val": "embedded"}
    made = parse({"domains": {"privacy": {"unlearn": part, "retain": part}}, "output": "out"})
    samples = load_samples(made)
    assert len(samples) == 4
    assert all(sample.key == f"{sample.prompt}.0" for sample in samples)
    assert texts(load_general(made)) == [("g", "h")]


def test_embedded_has_no_held_out_rows():
    given = {"unlearn": {"train": "embedded", "heldout": "embedded"}}
    given["retain"] = {"train": "embedded"}
    with pytest.raises(InputError) as caught:
        load_samples(parse({"domains": {"privacy": given}, "output": "out"}))
    assert str(caught.value) == (
        "domains.privacy.unlearn.heldout: embedded has no part 'heldout'. "
        "Allowed: train, val, or a file."
    )


def test_embedded_has_only_its_own_domains():
    part = {"train": "embedded"}
    made = parse({"domains": {"privcy": {"unlearn": part, "retain": part}}, "output": "out"})
    with pytest.raises(InputError) as caught:
        load_samples(made)
    assert str(caught.value).split("\n")[0] == (
        "domains.privcy.unlearn.train: embedded has no domain 'privcy'. Did you mean 'privacy'? "
        "Allowed: privacy, copyright, or a file."
    )


# --- digests, raw rows, imports


def test_the_digest_depends_on_text_and_order_and_not_on_the_format(put, tmp_path):
    rows = [{"question": p, "answer": c, "id": 1} for p, c in TEXTS]
    one = data_digest(load_samples(config(put("a.jsonl", as_jsonl(ROWS)))))
    other = data_digest(load_samples(config(put("b.json", json.dumps(rows)))))
    assert one == other
    assert list(one) == ["d.unlearn.train", "d.retain.train"]
    assert one["d.unlearn.train"] == one["d.retain.train"]
    assert all(len(value) == 64 for value in one.values())


@pytest.mark.parametrize(
    "change",
    [{"prompt": "x"}, {"completion": "x"}, {"context": (("system", "x"),)}, None],
)
def test_the_digest_changes_with_each_text_and_with_the_order(good, change):
    samples = load(good)
    changed = [replace(samples[0], **change), *samples[1:]] if change else samples[::-1]
    assert data_digest(changed) != data_digest(samples)
    assert data_digest(list(samples)) == data_digest(samples)


def test_raw_rows_are_as_they_were_read(good, put):
    assert read_rows(good) == [(f"line {n}", row) for n, row in enumerate(ROWS, start=1)]
    (_, bad), (where, row) = read_rows(put("a.jsonl", '{\n{"x": [1]}\n'))
    assert isinstance(bad, InputError)
    assert (where, row) == ("line 2", {"x": [1]})


def test_importing_loads_no_heavy_library():
    code = (
        "import sys, grail.data.samples, grail.data.preflight;"
        "print({'datasets', 'pyarrow', 'pandas', 'torch', 'numpy'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(grail.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert run.stdout.strip() == "set()", run.stderr
