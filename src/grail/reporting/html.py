"""Pages: a template and what it shows become one self-contained HTML file, without any script."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from grail.reporting.tables import BAD, GOOD, NOTE, OPEN, WARNING

LIGHTS = {GOOD: "good", NOTE: "look", OPEN: "open", BAD: "bad"}
"""Light -> its class in the page's style."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("grail.reporting", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"lights": LIGHTS, "warning": WARNING}
    return environment


def render_page(name: str, content: Mapping[str, Any]) -> str:
    """Return the template ``pages/NAME.html.jinja`` filled with ``content``.

    A template extends ``frame.html.jinja`` (style, light and dark, phone, print) and takes tables,
    charts and lists from ``parts.html.jinja``; everything in ``content`` is escaped.
    """
    return _environment().get_template(f"{name}.html.jinja").render(content)
