"""The list of settings: nothing is missing, every help text is there, limits are said."""

import inspect
import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from grail.comparison.settings import Comparison
from grail.config.run import Config
from grail.config.schema import choices, field_at, named_fields, section_in, settings_of
from grail.config.unlearning import Until
from grail.config.values import Count, Section, Share

ROOTS = (Config, Comparison)


class Inner(Section):
    """One line."""

    share: Share = 0.5
    """Help over
    two lines."""
    words: list[Literal["a", "b"]] = Field(default_factory=lambda: ["a"])
    """Words."""


class Outer(Section):
    """One line."""

    count: Count | None = None
    """A count."""
    inner: Inner = Inner()
    maybe: Inner | None = Inner()
    """null: none."""
    free: dict[str, Inner]
    """Free names."""


def sections(root):
    """Yield a section and all in it."""
    yield root
    for field in root.model_fields.values():
        if inner := section_in(field.annotation):
            yield from sections(inner)


@pytest.mark.parametrize("root", ROOTS)
def test_every_setting_has_its_help(root):
    """A field that is a section, and never null, is explained by the section's docstring."""
    for section in sections(root):
        about = inspect.getdoc(section)
        assert about, section
        assert "\n" not in about, f"{section}: one line"
        for name, field in section.model_fields.items():
            if not (field.description or "").strip():
                assert section_in(field.annotation), f"{section.__name__}.{name} has no help text"


@pytest.mark.parametrize("root", ROOTS)
def test_the_list_has_every_setting_once_with_its_default(root):
    keys = [setting.key for setting in settings_of(root)]
    assert len(set(keys)) == len(keys)
    for section in sections(root):
        for name, field in named_fields(section).items():
            if name != "made_with" and not section_in(field.annotation):
                assert any(key == name or key.endswith(f".{name}") for key in keys), name
    for setting in settings_of(root):
        assert setting.default in ("required", "section") or json.loads(setting.default) != ""
        assert setting.help == " ".join(setting.help.split())


def test_what_the_list_says():
    assert [tuple(setting) for setting in settings_of(Outer)] == [
        ("count", "null", "whole number >= 1 or null", "A count."),
        ("inner.share", "0.5", "number >= 0 and < 1", "Help over two lines."),
        ("inner.words", '["a"]', "list of a, b", "Words."),
        ("maybe", "section", "section or null", "null: none."),
        ("maybe.share", "0.5", "number >= 0 and < 1", "Help over two lines."),
        ("maybe.words", '["a"]', "list of a, b", "Words."),
        ("free", "required", "section", "Free names."),
        ("free.NAME.share", "0.5", "number >= 0 and < 1", "Help over two lines."),
        ("free.NAME.words", '["a"]', "list of a, b", "Words."),
    ]


def test_a_path_leads_to_its_section_and_type():
    assert field_at([], Outer) == (Outer, Outer)
    assert field_at(["count"], Outer)[0] is Outer
    assert field_at(["free", "mine", "share"], Outer)[0] is Inner
    section, annotation = field_at(["maybe", "words", "0"], Outer)
    assert section is Inner
    assert choices(annotation) == ["a", "b"]
    assert field_at(["unlearning", "until", "row_accuracy"], Config)[0] is Until


def test_choices_of_a_type():
    assert choices(Literal["x", 3]) == ["x", "3"]
    assert choices(list[Annotated[Literal["x", "y"], "note"]] | None) == ["x", "y"]
    assert choices(dict[str, int]) == []


def test_a_section_in_a_type():
    assert section_in(Inner) is section_in(Inner | None) is section_in(dict[str, Inner]) is Inner
    assert section_in(Annotated[dict[str, Annotated[Inner, 1]], 2]) is Inner
    assert section_in(list[int]) is section_in(int) is None
    assert issubclass(Inner, BaseModel)
