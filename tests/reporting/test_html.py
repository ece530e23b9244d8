"""Pages are filled, escaped, and complete."""

import pytest
from jinja2 import UndefinedError

from grail.reporting.html import LIGHTS, render_page
from grail.reporting.tables import WORST_LAST, Table

CONTENT = {
    "name": "<b>",
    "about": "x & y",
    "leads": Table("Who", ("a", "b"), (("✗ bad", "1*"), ("✓ good", "*")), "note"),
    "failed": [],
    "charts": [],
    "tables": [],
    "settings": "</code>",
}


def test_every_light_has_a_class_of_its_own():
    assert tuple(LIGHTS) == WORST_LAST
    assert len(set(LIGHTS.values())) == len(LIGHTS)


def test_texts_are_escaped_and_lights_and_leaders_are_marked():
    html = render_page("comparison", CONTENT)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert (
        '<td class="light bad"><span class="sign">✗</span> bad</td><td class="best">1</td>' in html
    )
    assert ">*</td>" in html
    assert "</code></code>" not in html


def test_what_a_template_needs_and_does_not_get_is_an_error():
    with pytest.raises(UndefinedError):
        render_page("comparison", {"name": "x"})
