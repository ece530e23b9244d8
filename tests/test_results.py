import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grail.errors import InputError
from grail.files import file_digest, write_json
from grail.results import (
    Result,
    Results,
    harmonic_success,
    make_results,
    read_pace,
    read_results,
    summarise,
    write_results,
)

PERCENT = st.floats(0, 100).map(lambda value: round(value, 6))


def rows_of(model, part, values):
    """values: domain -> (US, RS)."""
    return [
        row
        for domain, (us, rs) in values.items()
        for row in (
            Result(model, domain, "unlearn", part, "US", us, 4),
            Result(model, domain, "retain", part, "RS", rs, 4),
            Result(model, domain, "retain", part, "NLL", 0.5, 4),
        )
    ]


def all_rows():
    return [
        *rows_of("vanilla", "train", {"b": (0.0, 100.0), "a": (10.0, 90.0)}),
        *rows_of("unlearned", "train", {"b": (75.0, 25.0), "a": (60.0, 30.0)}),
        *rows_of("unlearned", "val", {"b": (50.0, 50.0), "a": (0.0, 0.0)}),
        Result("vanilla", "general", "general", "train", "PPL", 12.25, 7),
    ]


def test_summary_by_hand():
    # b: 2 * 75 * 25 / 100 = 37.5; a: 2 * 60 * 30 / 90 = 40
    assert summarise(all_rows(), "unlearned", "train") == {"Avg": 190 / 4, "HS": (37.5 + 40) / 2}
    assert summarise(all_rows(), "vanilla", "train") == {"Avg": 50.0, "HS": (0 + 18) / 2}


def test_harmonic_success_is_taken_per_domain_before_averaging():
    rows = rows_of("m", "train", {"a": (100.0, 0.0), "b": (0.0, 100.0)})
    assert summarise(rows, "m", "train") == {"Avg": 50.0, "HS": 0.0}  # of the means it would be 50


def test_nothing_unlearned_and_nothing_kept_is_zero():
    assert harmonic_success(0.0, 0.0) == 0.0
    assert summarise(rows_of("m", "p", {"a": (0.0, 0.0)}), "m", "p") == {"Avg": 0.0, "HS": 0.0}


@given(PERCENT, PERCENT)
def test_harmonic_success_properties(us, rs):
    hs = harmonic_success(us, rs)
    assert hs == harmonic_success(rs, us)
    assert min(us, rs) * (1 - 1e-12) <= hs <= (us + rs) / 2 * (1 + 1e-12)
    assert harmonic_success(us, us) == pytest.approx(us)


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=1, max_size=5), st.randoms())
def test_summary_properties(pairs, random):
    rows = rows_of("m", "train", {f"d{i}": pair for i, pair in enumerate(pairs)})
    want = summarise(rows, "m", "train")
    random.shuffle(rows)
    assert summarise(rows, "m", "train") == want
    assert want["Avg"] == pytest.approx(sum(map(sum, pairs)) / (2 * len(pairs)))
    assert want["HS"] <= want["Avg"] * (1 + 1e-12)


@pytest.mark.parametrize("missing", ["US", "RS"])
def test_a_domain_with_one_side_does_not_count(missing):
    rows = [row for row in all_rows() if not (row.domain == "a" and row.metric == missing)]
    # b alone, by hand: (75 + 25) / 2 and 2 * 75 * 25 / 100
    assert summarise(rows, "unlearned", "train") == {"Avg": 50.0, "HS": 37.5}
    rows = [row for row in all_rows() if row.metric != missing]
    assert summarise(rows, "unlearned", "train") == {}
    assert make_results(rows, {}, "").summary["train"] == {"unlearned": {}, "vanilla": {}}


def test_summary_of_nothing_is_empty():
    assert summarise(all_rows(), "unlearned", "test") == {}
    assert summarise([], "vanilla", "train") == {}
    assert summarise(all_rows()[-1:], "vanilla", "train") == {}


def test_make_results_summarises_all_parts_and_models():
    results = make_results(iter(all_rows()), {"entries": 3, "changed": 0}, "abc")
    assert results.rows == tuple(all_rows())
    assert set(results.summary) == {"train", "val"}
    for part, models in results.summary.items():
        for model, values in models.items():
            assert values == summarise(all_rows(), model, part)
    assert results.summary["val"]["vanilla"] == {}


def test_general_rows_alone_make_no_part():
    assert make_results(all_rows()[-1:], {}, "").summary == {}


def test_value_finds_one_row_or_none():
    results = make_results(all_rows(), {}, "")
    assert results.value("unlearned", "a", "unlearn", "train", "US") == 60.0
    assert results.value("vanilla", "general", "general", "train", "PPL") == 12.25
    absent = [
        ("x", "a", "unlearn", "train", "US"),
        ("unlearned", "x", "unlearn", "train", "US"),
        ("unlearned", "a", "retain", "train", "US"),
        ("unlearned", "a", "unlearn", "x", "US"),
        ("unlearned", "a", "unlearn", "train", "x"),
    ]
    assert [results.value(*key) for key in absent] == [None] * 5


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_json_keeps_every_bit_of_a_value(value):
    row = Result("m", "d", "retain", "val", "NLL", value, 1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        write_results(path, Results((row,), {}, {}))
        assert read_results(path).rows == (row,)


def test_round_trip(tmp_path):
    freezing = {"entries": 10, "changed": 0, "sha256_before": "a", "sha256_after": "a"}
    results = make_results(all_rows(), freezing, "digest")
    write_results(tmp_path / "r" / "results.json", results)
    assert read_results(tmp_path / "r" / "results.json") == results
    write_results(tmp_path / "again.json", read_results(tmp_path / "r" / "results.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "r/results.json").read_bytes()


def test_the_file_has_the_documented_shape(tmp_path):
    write_results(tmp_path / "results.json", make_results(all_rows(), {"changed": 0}, "digest"))
    raw = json.loads((tmp_path / "results.json").read_text())
    row = {"domain": "b", "side": "unlearn", "part": "train", "metric": "US", "value": 75.0, "n": 4}
    assert {"model": "unlearned", **row} in raw["rows"]
    top = raw["summary"]["train"]
    assert {k: top[k] for k in ("Avg", "HS")} == summarise(all_rows(), "unlearned", "train")
    assert top["models"]["vanilla"] == summarise(all_rows(), "vanilla", "train")
    assert raw["freezing"] == {"changed": 0}


def test_results_that_are_not_numbers_are_not_written(tmp_path):
    rows = [Result("m", "d", "retain", "val", "NLL", float("nan"), 1)]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path / "results.json", Results(tuple(rows), {}, {}))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"results\.json does not exist.*grail evaluate"):
        read_results(tmp_path / "results.json")


ROW = vars(Result("vanilla", "d", "unlearn", "train", "US", 1.0, 4))
GOOD = {"rows": [], "freezing": {}, "summary": {}, "inputs": "", "samples": ""}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "\xff", json.dumps(GOOD)])
def test_what_was_not_written_so_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"results\.json is not as grail wrote it"):
        read_results(path)


@pytest.mark.parametrize(
    "values",
    [
        *[{k: v for k, v in GOOD.items() if k != key} for key in GOOD],
        {**GOOD, "rows": [1]},
        {**GOOD, "rows": [{"model": "m"}]},
        {**GOOD, "rows": [["m", "d", "unlearn", "train", "US", 1.0, 4]]},
        {**GOOD, "rows": [ROW | {"n": []}]},
        {**GOOD, "rows": [ROW | {"side": ["unlearn"]}]},
        {**GOOD, "rows": [ROW | {"value": {}}]},
        {**GOOD, "freezing": "held"},
        {**GOOD, "summary": {"train": {"models": {"vanilla": {"Avg": "high"}}}}},
        {**GOOD, "summary": []},
        {**GOOD, "summary": {"train": {"Avg": 1}}},
        {**GOOD, "summary": {"train": 3}},
    ],
)
def test_something_else_is_refused(tmp_path, values):
    path = tmp_path / "results.json"
    write_json(path, values)
    with pytest.raises(InputError, match="not a results file"):
        read_results(path)
    write_json(path, GOOD)
    assert read_results(path) == Results((), {}, {}, "")


@pytest.mark.parametrize("text", ['{"accuracy": 0.5}', '{"accuracy": 0.75}\n', ""])
def test_samples_are_those_of_the_results(tmp_path, text):
    samples, path = tmp_path / "samples.jsonl", tmp_path / "results.json"
    samples.write_text('{"accuracy": 0.5}\n')
    write_results(path, Results((), {}, {}, "", file_digest(samples)))
    assert read_results(path).samples == file_digest(samples)
    samples.write_text(text)
    with pytest.raises(InputError, match=r"samples\.jsonl, or results\.json beside it, is not as"):
        read_results(path)


def test_the_pace_of_a_training(tmp_path):
    log = tmp_path / "train.jsonl"
    assert read_pace(log) == []
    log.write_text('{"step": 1, "seconds": 2}\n{"step": 2, "seconds": 0.5}\n')
    assert read_pace(log) == [2.0, 0.5]


@pytest.mark.parametrize(
    "line",
    ["{", "3", "[]", "{}", '{"seconds": null}', '{"seconds": {}}', '{"seconds": NaN}', "\xff"],
)
def test_a_damaged_log_is_refused(tmp_path, line):
    (tmp_path / "train.jsonl").write_bytes(line.encode("latin-1"))
    with pytest.raises(InputError, match=r"train\.jsonl is damaged"):
        read_pace(tmp_path / "train.jsonl")


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path)
