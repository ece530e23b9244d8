import json
from dataclasses import replace

import pytest
from rows import ROWS, TEXTS, as_jsonl, config, failure, load, texts

from grail.config.run import parse_config
from grail.data.samples import (
    Sample,
    data_digest,
    load_general,
    load_samples,
    normalised,
    paraphrases_of,
)
from grail.errors import InputError

# --- order, keys, limits


def test_domains_sides_and_parts_come_in_the_order_of_the_configuration(put):
    parts = {"unlearn": ("train", "val", "heldout"), "retain": ("train", "val")}
    names = [f"{d}.{s}.{p}" for d in "zab" for s in parts for p in parts[s]]
    files = {n: put(f"{n}.jsonl", as_jsonl([{"prompt": n, "completion": "x"}] * 2)) for n in names}
    domains = {
        d: {s: {p: files[f"{d}.{s}.{p}"] for p in reversed(parts[s])} for s in reversed(parts)}
        for d in "zab"
    }
    samples = load_samples(parse_config({"domains": domains, "output": "out"}))
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
        ({"prompt": "p", "labels": "s"}, "no known layout; keys found: labels, prompt."),
        ({"SECRET": "p", "labels": "SECRET"}, "no known layout; keys found: labels, 1 other."),
        ({}, "no known layout; keys found: none."),
        (["SECRET"], "a row must be an object with named values, got list."),
        ({"question": "q", "answer": 3}, "answer must be text, got int."),
        ({"prompt": None, "completion": "c"}, "prompt must be text, got NoneType."),
        ({"text": "q", "labels": " \n"}, "labels is empty."),
        ({"prompt": "p", "completion": "\ud800"}, "completion contains half a surrogate pair"),
        ({"question": "a\udc00", "answer": "b"}, "question contains half a surrogate pair"),
        (
            chat(("system", "\ud83d"), ("user", "a"), ("assistant", "b")),
            "messages[0].content contains half a surrogate pair",
        ),
        (
            {"text": "a", "labels": "b", "paraphrases": ["c", "\ude00\ud83d"]},
            "paraphrases[1] contains half a surrogate pair, which is not text. Correct it, or",
        ),
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
    for layout in ('{"prompt" or "question", "completion" or "answer"}', '{"text", "labels"}'):
        assert layout in last
    assert "SECRET" not in message


@pytest.mark.parametrize(("bad", "more"), [(5, None), (6, 1), (12, 7)])
def test_the_first_five_malformed_rows_are_listed_and_the_rest_counted(put, bad, more):
    source = put("a.jsonl", as_jsonl([ROWS[0], *[{"x": 1}] * bad]))
    lines = failure(source).split("\n")
    assert [f"line {n}:" in line for n, line in zip(range(2, 7), lines, strict=False)] == [True] * 5
    assert ("more malformed" in "\n".join(lines)) == (more is not None)
    assert more is None or f"and {more} more malformed row" in lines[5]
    assert len(lines) == (6 if more is None else 7)


def test_problems_of_all_sources_come_in_one_error(put, tmp_path):
    missing, folder = str(tmp_path / "no.jsonl"), str(tmp_path)
    made = parse_config(
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
    assert f"{folder} is a folder. Give one file: *.jsonl, *.json, *.csv, *.tsv, *.xlsx" in lines[2]
    assert "a.txt is of no known kind. Allowed: *.jsonl" in lines[3]


# --- embedded


@pytest.fixture
def embedded(monkeypatch):
    module = pytest.importorskip("grail.data.embedded")
    monkeypatch.setattr(
        module, "rows", lambda *place: [{"prompt": ".".join(place), "completion": "c"}]
    )
    monkeypatch.setattr(module, "general_rows", lambda: [{"prompt": "g", "completion": "h"}])


def test_embedded_has_only_its_own_domains():
    part = {"train": "embedded"}
    made = parse_config({"domains": {"privcy": {"unlearn": part, "retain": part}}, "output": "out"})
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


# -- the same row


def test_case_and_spacing_and_the_system_turn_make_no_difference():
    context = (("system", "Be brief."), ("user", "One\n two"), ("assistant", "THREE"))
    one = Sample("d", "unlearn", "val", 7, " Four ", "Fi\tve", context)
    text = normalised(one)
    assert (text.prompt, text.completion) == ("one two three four", "fi ve")
    assert (text.key, text.part) == ("d.unlearn.val.7", "val")
    other = Sample("e", "retain", "train", 0, "one two  three FOUR", "fi ve")
    assert normalised(other).row == text.row
    assert normalised(Sample("d", "unlearn", "val", 7, "Four", "Fi ve")).row != text.row


# -- paraphrases


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ()),
        ({"paraphrases": None}, ()),
        ({"paraphrases": ""}, ()),
        ({"paraphrases": []}, ()),
        ({"paraphrases": ["a?", "b?"]}, ("a?", "b?")),
        ({"paraphrases": '["a?", "b?"]'}, ("a?", "b?")),
    ],
)
def test_a_list_of_prompts_is_read(given, found):
    assert paraphrases_of(given) == found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("secret words", "as JSON in a CSV file"),
        ('{"a": 1}', "got dict"),
        (7, "got int"),
        (["a?", 3], r"paraphrases\[1\] must be a prompt"),
        ([" "], r"paraphrases\[0\] must be a prompt"),
    ],
)
def test_anything_else_is_refused_without_its_text(given, words):
    with pytest.raises(InputError, match=words) as error:
        paraphrases_of({"paraphrases": given})
    assert "secret" not in str(error.value)


LAYOUTS = [
    {"prompt": "q?", "completion": "x"},
    {"question": "q?", "answer": "x"},
    {"text": "q?", "labels": "x"},
    {"messages": [{"role": "user", "content": "q?"}, {"role": "assistant", "content": "x"}]},
]


def loaded(tmp_path, suffix, lines):
    file = tmp_path / f"rows{suffix}"
    file.write_text("\n".join(lines) + "\n")
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "p", "completion": "y"}\n')
    part = {"train": str(other)}
    domains = {"a": {"unlearn": {"train": str(file)}, "retain": part}}
    return load_samples(parse_config({"domains": domains, "output": "out"}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_may_carry_them_and_digests_do_not_notice(tmp_path, layout):
    plain = loaded(tmp_path, ".jsonl", [json.dumps(layout)])
    more = loaded(tmp_path, ".jsonl", [json.dumps(layout | {"paraphrases": ["r?", "s?"]})])
    assert plain[0].paraphrases == ()
    assert more[0].paraphrases == ("r?", "s?")
    assert (more[0].prompt, more[0].completion) == ("q?", "x")
    assert data_digest(plain) == data_digest(more)


def test_a_csv_cell_holds_a_list(tmp_path):
    cell = '"[""r?"", ""s?""]"'
    found = loaded(tmp_path, ".csv", ["prompt,completion,paraphrases", f"q?,x,{cell}", "t?,z,"])
    assert [sample.paraphrases for sample in found[:2]] == [("r?", "s?"), ()]


def test_a_wrong_one_is_named_with_its_line(tmp_path):
    with pytest.raises(InputError, match=r"rows.jsonl line 1: paraphrases must be a list"):
        loaded(tmp_path, ".jsonl", [json.dumps(LAYOUTS[0] | {"paraphrases": 3})])
