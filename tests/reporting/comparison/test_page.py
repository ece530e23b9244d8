"""The page of a comparison: who leads, the chart, the tables, and nothing from elsewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

from grail.reporting.comparison.page import comparison_html

_PLACE = Path(__file__).with_name("test_tables.py")
_SPEC = importlib.util.spec_from_file_location("comparison_examples", _PLACE)
EXAMPLES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(EXAMPLES)


def lead(clear, seeds):
    first = EXAMPLES.best("grail", "Avg", clear, seeds)
    return first | {"second": "b", "mean": 10.0, "low": 1.0 if clear else -1.0, "high": 12.0}


@pytest.mark.parametrize(
    ("clear", "seeds", "words"),
    [
        (True, (0, 1), "leads clearly"),
        (False, (0, 1), "not told from chance"),
        (True, (0,), "leads with one seed"),
    ],
)
def test_who_leads_is_said_with_what_it_is_worth(clear, seeds, words):
    methods = EXAMPLES.method("grail"), EXAMPLES.method("b", 70.0)
    html = comparison_html(EXAMPLES.comparison(*methods, best=[lead(clear, seeds)]))
    assert words in html
    assert "+10.0 [" in html


def test_chart_tables_and_failures_are_on_one_self_contained_page():
    cells = [{"method": "lost", "seed": 3, "failed": "out of <memory>", "folder": "x"}]
    methods = EXAMPLES.method("grail"), EXAMPLES.method("<b>", 70.0, 90.0)
    html = comparison_html(EXAMPLES.comparison(*methods, cells=cells))
    assert html.count('<g class="point method">') == 4  # two methods, two parts
    assert "out of &lt;memory&gt;" in html
    assert "<b>" not in html
    assert html.index("Forgetting against keeping: val") < html.index("Tiny_1: train rows")
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(|\bsrc=", html)
