"""Tables and sentences as text, and the successes behind them."""

from grail.reporting.tables import ALL_DOMAINS, WARNING, Table, listed, markdown, successes
from grail.results import Result, make_results


def test_successes_are_pairs_of_the_two_models():
    rows = [
        Result(model, "a", side, "train", metric, value, n)
        for model, us, rs in (("vanilla", 2.5, 98.25), ("unlearned", 90.0, 60.0))
        for side, metric, value, n in (("unlearn", "US", us, 24), ("retain", "RS", rs, 20))
    ]
    domain, average = successes(make_results(rows, {}, ""))
    assert (domain.domain, domain.part, domain.rows) == ("a", "train", "24/20")
    assert domain.pairs["US"] == (2.5, 90.0)
    assert domain.pairs["HS"][1] == 72.0  # 2 * 90 * 60 / 150
    assert average.domain == ALL_DOMAINS
    assert average.pairs["Avg"][1] == 75.0


def test_a_list_is_one_sentence_and_nothing_is_none():
    assert listed("Kept", ["a", "b"]) == "Kept: a; b."
    assert listed("Harmed", ["a"], warning=True) == f"{WARNING}Harmed: a."
    assert listed("Harmed", [], warning=True) == ""


def test_markdown_escapes_names():
    text = markdown(Table("T", ("x", "y"), (("<b>&|", "a\\|\nb"),), "n <i>"))
    assert text.splitlines() == [
        "## T",
        "",
        "| x | y |",
        "| --- | --- |",
        "| &lt;b>&amp;\\| | a\\\\\\| b |",
        "",
        "n &lt;i>",
    ]


def test_markdown_without_rows_is_the_note():
    assert markdown(Table("T", ("x",), (), "none")).splitlines() == ["## T", "", "none"]
