"""Every kind of source is read as it is, and what cannot be read is named."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rows import ROWS, TEXTS, as_jsonl, config, failure, load, texts

import grail
from grail.config.run import parse_config
from grail.data.readers import read_rows
from grail.data.samples import load_general, load_samples, remarks
from grail.data.tables import separator
from grail.errors import InputError


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("name", "hint"), [("embeded", "'embedded'"), ("a.jsnl", "'.jsonl'"), ("a.parquett", "parquet")]
)
def test_a_misspelled_source_gets_a_hint(name, hint):
    message = failure(f"/nowhere/{name}")
    assert "Did you mean" in message
    assert hint in message


@pytest.mark.parametrize(
    ("source", "reason"),
    [("/" + "x" * 5000 + ".jsonl", "does not exist"), ("a\0b.jsonl", "embedded null byte")],
)
def test_an_impossible_path_is_refused(source, reason):
    assert reason in failure(source)


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
    assert "b.json row 1 (from 0): no known layout; keys found: 1 other." in (
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
    other = failure(put("a.csv", "prompt;reply\na;b\n"))
    assert "a.csv line 2: no known layout; keys found: prompt, 1 other." in other


def test_a_csv_without_a_header_keeps_its_first_row_to_itself(put):
    message = failure(put("a.csv", "Who is SECRET?,SECRET lives there\nq,a\n"))
    assert "a.csv line 2: no known layout; keys found: 2 others." in message
    assert "SECRET" not in message


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["", "sep={}\r\n", '"sep={}"\n'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_cells_may_be_parted_by_other_marks(put, mark, first, encoding):
    text = first.format(mark) + f'id{mark}prompt{mark}completion\n1{mark}a, b{mark}"c;\td|"\n'
    text = text.replace("a, b", '"a, b"')
    source = put("a.CSV", text.encode(encoding))
    assert texts(load(source)) == [("a, b", "c;\td|")]
    assert separator(source) == mark
    made = config(source, general=source)
    named = "tabs" if mark == "\t" else repr(mark)
    said = f"{source}: the cells are parted by {named}, not commas."
    assert remarks(made) == [said] * (mark != ",")


def test_files_with_one_mark_are_named_together(put):
    first, second = (put(name, "prompt;completion\nq;a\n") for name in ("a.csv", "b.csv"))
    said = f"{first}, {second}: the cells are parted by ';', not commas."
    assert remarks(config(second, general=first)) == [said]


def test_a_stated_separator_wins_and_the_header_is_read_without_quoted_names(put):
    assert texts(load(put("a.csv", "sep=;\nprompt;completion;a,b,c,d\nq;a;x\n"))) == [("q", "a")]
    assert texts(load(put("b.csv", '"a;b;c;d",prompt,completion\nx,q,a\n'))) == [("q", "a")]
    lines = failure(put("c.csv", "sep=;\nprompt;completion\nq;a;b\n"))
    assert "c.csv line 3: 3 cells under 2 names. Quote text with ';'." in lines
    assert separator(put("a.jsonl", "")) == separator("hub:a/b") == separator("embedded") == ""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["", "sep=;"])
def test_the_header_alone_says_what_parts_the_cells(put, end, first):
    lines = [first, "prompt;completion", "a, b;c, d,,,"]
    assert texts(load(put("a.csv", end.join([*lines, ""])))) == [("a, b", "c, d,,,")]


@pytest.mark.parametrize("size", [131_072, 131_073, 500_000])
def test_csv_cells_of_any_length(put, size):
    answer = "x y\n" * (size // 4) + "z"
    assert texts(load(put("a.csv", f'prompt,completion\nq,"{answer}"\n'))) == [("q", answer)]


# --- keys and columns given twice

TWICE = {
    "prompt": '{"prompt": "a", "completion": "b", "prompt": "SECRET"}',
    "completion": '{"prompt": "a", "completion": "b", "\\u0063ompletion": "b"}',
    "content": '{"messages": [{"role": "user", "content": "x", "content": "SECRET"}]}',
    "deep": '{"prompt": "a", "completion": "b", "x": [{"y": [[{"deep": 1, "deep": 1}]]}]}',
}


@pytest.mark.parametrize("key", TWICE)
def test_a_key_given_twice_in_json_names_row_and_key(put, key):
    good = '{"prompt": "a", "completion": "b"}'
    expected = f"the key '{key}' is given twice. Keep one of them."
    for name, content, where in [
        ("a.jsonl", f"{good}\n{TWICE[key]}\n", "a.jsonl line 2"),
        ("a.json", f"[{good}, {TWICE[key]}]", "a.json row 1 (from 0)"),
        ("a.json#in.rows", f'{{"in": {{"rows": [{good}, {TWICE[key]}]}}}}', "row 1 (from 0)"),
    ]:
        path = put(name.partition("#")[0], content)
        message = failure(path + name[len(name.partition("#")[0]) :])
        assert f"{where}: {expected}" in message
        assert "SECRET" not in message


@pytest.mark.parametrize(
    ("content", "inner"),
    [
        ('{"v": [1], "v": [2]}', ""),
        ('{"a": {"v": [1], "v": [2]}}', "#a.v"),
        ('{"a": 1, "a": []}', "#a"),
        ('{"a": [], "info": {"n": 1, "n": 2}}', "#a"),
        ('{"a": {"b": [], "info": [{"n": 1, "n": 2}]}}', "#a.b"),
    ],
)
def test_a_list_given_twice_in_json_is_refused(put, content, inner):
    assert "is given twice" in failure(put("a.json", content) + inner)


@pytest.mark.parametrize("header", ["prompt,completion,prompt", '"prompt",id,"prompt",completion'])
def test_a_csv_column_given_twice_is_named_by_number(put, header):
    message = failure(put("a.csv", f"{header}\nx,y,z,w\n"))
    assert "a.csv: columns 1 and 3 have the same name. Keep one of them." in message
    private = failure(put("b.csv", "SECRET;SECRET\n1;2\n"))
    assert "columns 1 and 2" in private
    assert "SECRET" not in private


def test_csv_columns_without_a_name_are_no_doubles(put):
    assert texts(load(put("a.csv", "prompt,completion,, \nq,a,,\n"))) == [("q", "a")]


def test_a_parquet_column_given_twice_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    columns = [pyarrow.array([text]) for text in "abc"]
    table = pyarrow.table(columns, names=["prompt", "completion", "prompt"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert "the column 'prompt' is given twice." in failure(str(tmp_path / "a.parquet"))


# --- links and the home folder


def test_a_link_to_a_blob_is_read_by_its_own_name(put, tmp_path):
    put("5f3a", as_jsonl(ROWS))
    (tmp_path / "a.jsonl").symlink_to("5f3a")
    assert texts(load(str(tmp_path / "a.jsonl"))) == TEXTS


def test_a_file_in_the_home_folder(put, tmp_path, monkeypatch):
    put("a.jsonl", as_jsonl(ROWS))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [row for _, row in read_rows("~/a.jsonl")] == ROWS


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
    assert "hub:o/n row 0 (from 0): no known layout; keys found: 1 other." in failure("hub:o/n")


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
    made = parse_config(
        {"domains": {"privacy": {"unlearn": part, "retain": part}}, "output": "out"}
    )
    samples = load_samples(made)
    assert len(samples) == 4
    assert all(sample.key == f"{sample.prompt}.0" for sample in samples)
    assert texts(load_general(made)) == [("g", "h")]


def test_embedded_has_no_held_out_rows():
    given = {"unlearn": {"train": "embedded", "heldout": "embedded"}}
    given["retain"] = {"train": "embedded"}
    with pytest.raises(InputError) as caught:
        load_samples(parse_config({"domains": {"privacy": given}, "output": "out"}))
    assert str(caught.value) == (
        "domains.privacy.unlearn.heldout: embedded has no part 'heldout'. "
        "Allowed: train, val, or a file."
    )


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
