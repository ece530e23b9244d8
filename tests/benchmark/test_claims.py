"""What README and docs say of methods is what the committed results say, and how far they reach."""

import json

import claims
import pytest
import readings
from claims import passages, problems, uncovered
from readings import Reader

PAGE = """# Page

Kept. One is at 81.5.

- **First.** It leads by
  2.5.
- Second: 7.25 [1.0, 2.0].

| a | b |
|---|---|
| one | 3.0 |

<!-- table -->
99.9
<!-- end -->
```
88.8
```
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two methods with three seeds and a grid, of which "one" is chosen at an edge."""

    def cell(method, seed, avg):
        return {"method": method, "seed": seed, "summary": {"unlearned": {"train": {"Avg": avg}}}}

    grid = [
        {"method": method, "point": {"rate": rate}, "chosen": rate == best, "seed": 0}
        | {"metric": "Avg", "value": 10.0 * rate}
        for method, best in (("one", 4.0), ("two", 2.0))
        for rate in (1.0, 2.0, 4.0)
    ]
    cells = [cell("one", s, 80.0 + s) for s in range(3)]
    cells += [cell("two", s, 70.0 + 2 * s) for s in range(3)] + [cell("few", 0, 5.0)]
    line = {"model": "unlearned", "part": "train", "metric": "Avg", "low": 1.0, "high": 2.0}
    line |= {"method": "one", "reference": "two"}
    comparison = {"grid": grid, "differences": [line], "vanilla": {}}
    (tmp_path / "results").mkdir()
    content = {"measurements": cells, "comparison": comparison}
    (tmp_path / "results" / "made.json").write_text(json.dumps(content))
    monkeypatch.setattr(readings, "HERE", tmp_path)
    for cached in (readings.result, readings.rows):
        cached.cache_clear()
    yield
    for cached in (readings.result, readings.rows):
        cached.cache_clear()


def claim(holds, sentence="Kept.", **more):
    return {"page": "p", "sentence": sentence, "file": "made", "holds": holds, **more}


def test_every_claim_holds_and_every_figure_is_claimed():
    assert claims.check() == []


def test_passages_are_paragraphs_points_and_lines_of_tables():
    assert passages(PAGE) == [
        *("# Page", "Kept. One is at 81.5.", "- **First.** It leads by 2.5."),
        *("- Second: 7.25 [1.0, 2.0].", "| one | 3.0 | | a | b |"),
    ]


def test_numbers_are_recomputed(results):
    reader = Reader("made")
    assert reader.evaluate("avg('one')") == 81
    assert reader.evaluate("lead('one', 'two', 'Avg', 'train')") == 81 - 72
    assert reader.evaluate("each('two', 'one', 'Avg', 'train')") == [-10, -9, -8]
    assert reader.evaluate("interval('two', 'one', 'Avg', 'train')") == [-2, -1]
    assert reader.evaluate("spread(of('one', 'A*'), of('two', 'Avg'))") == [70, 82]
    assert reader.evaluate("pm(of('two', 'Avg'))") == [72, 2]
    assert reader.evaluate("chosen('one', 'Avg', 2.0)") == 20
    assert reader.evaluate("within(of('one', 'Avg'), 81)") == 2
    assert reader.evaluate("2 * min(of('one', 'Avg')) - 1 > 158") is True


@pytest.mark.parametrize(
    "word", ["__import__('os')", "(1).real", "[x for x in (1,)]", "1 if 1 else 2"]
)
def test_only_the_language_is_evaluated(results, word):
    with pytest.raises((ValueError, LookupError)):
        Reader("made").evaluate(word)


def test_a_wrong_figure_a_missing_one_and_an_unchecked_one_are_told(results):
    text = "Kept. One is at 81.5."
    told = problems(claim("at 81.5 = avg('one')\nat 72 = avg('two')"), text)
    assert any("should be [81.0]" in line for line in told)
    assert any("'at 72' is not in the passage" in line for line in told)
    assert any("81.5 is not checked" in line for line in problems(claim("avg('two') > 1"), text))
    assert problems(claim("avg('two') > 1", others="81.5"), text) == []
    assert "not so" in problems(claim("avg('two') > 99", others="81.5"), text)[0]
    assert "0 passages" in problems(claim("", sentence="Lost."), text)[0]


SINGLE = "# Page\n\n## Single runs, two seeds\n\nKept. {}\n\n### More\n\n{}\n\n## Next\n\n{}\n"


@pytest.mark.parametrize(
    ("figure", "why"), [("5 = avg('few')", "on 1 seeds"), ("81 = avg('one')", "edge")]
)
def test_a_comparison_rests_on_enough_seeds_and_no_edge(results, figure, why):
    """Saying so is not enough: it stands below the heading under which nothing is concluded."""
    number = figure.split()[0]
    for said in ("", " (one seed)", ", at an edge"):
        assert why in problems(claim(figure), f"Kept. It has {number}{said}.")[0]
    assert problems(claim(figure), SINGLE.format(number, "", "")) == []
    after = SINGLE.replace("Kept. ", "").replace("## Next\n\n", "## Next\n\nKept. ")
    assert why in problems(claim(figure), after.format("", "", number))[0]


def test_a_comparison_with_three_seeds_inside_its_grid_stands_anywhere(results):
    assert problems(claim("72 = avg('two')"), "Kept. It has 72.") == []


def test_a_figure_of_one_model_says_how_far_it_reaches(results):
    few, edge = (claim(h, kind="figure") for h in ("5 = avg('few')", "81 = avg('one')"))
    assert "rests on 1 seeds" in problems(few, "Kept. It has 5.")[0]
    assert problems(few, "Kept. It has 5 (one seed).") == []
    assert "edge" in problems(edge, "Kept. It has 81.")[0]
    assert problems(edge, "Kept. It has 81, at an edge.") == []


def test_what_a_file_does_not_tell_of_seeds_says_the_row(results):
    raw = "81 = raw('measurements', 1, 'summary', 'unlearned', 'train', 'Avg')"
    assert "on 1 seeds" in problems(claim(raw), "Kept. It has 81.")[0]
    assert problems(claim(raw, seeds=3), "Kept. It has 81.") == []


def test_single_runs_end_at_the_next_heading_of_their_level():
    assert claims.concluding(SINGLE.format("a", "b", "c")).split() == [
        "#",
        "Page",
        "##",
        "Next",
        "c",
    ]


def test_a_figure_without_a_claim_is_found(monkeypatch):
    rows = {"claims": [{"page": "p", "sentence": "Kept."}], "elsewhere": []}
    monkeypatch.setattr(claims, "claims", lambda: rows)
    assert [text[:8] for text in uncovered("p", PAGE)] == ["- **Firs", "- Second", "| one | "]
