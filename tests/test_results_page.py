"""The pages of results show what the files say, and those hold no place of anybody's machine."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmark" / "results").rglob("*.json"))


@pytest.fixture
def publish(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmark")
    spec = importlib.util.spec_from_file_location("publish", ROOT / "benchmark" / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_results(publish):
    assert publish.settled() == []


def test_a_number_that_was_changed_by_hand_is_found(publish, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "results" / "methods.md").read_text()
    (first, *_) = publish.BLOCK.finditer(text)
    place = text.index(".", first.end(2) + 400)  # in a number of the first table
    page = tmp_path / "page.md"
    page.write_text(text[:place] + ".7" + text[place + 1 :])
    monkeypatch.setattr(publish, "PAGES", [page])
    assert publish.settled() == [first[1]]
    assert publish.page(page.read_text()) == text


def test_every_figure_of_the_page_is_there(publish):
    named = [
        page.parent / name
        for page in publish.PAGES
        for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())
    ]
    assert named
    for name in named:
        assert name.read_bytes().startswith(b"\x89PNG"), name


def test_every_block_is_written_not_the_first_alone(publish, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "HERE", tmp_path)
    monkeypatch.setattr(publish, "tables", lambda name: f"of {name}")
    (tmp_path / "results").mkdir()
    for name in ("one", "two"):
        (tmp_path / "results" / f"{name}.json").touch()
    blocks = "".join(f"<!-- {n} -->\nold\n<!-- end -->\nbetween\n" for n in ("one", "none", "two"))
    expected = blocks.replace("one -->\nold\n", "one -->\n\nof one\n", 1)
    expected = expected.replace("two -->\nold\n", "two -->\n\nof two\n")
    assert publish.page(blocks) == expected


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_a_result_file_has_the_common_form(file):
    text = file.read_text()
    found = json.loads(text)
    assert {"machine", "settings", "measurements", "ratios"} <= found.keys()
    assert not re.search(r'"(/|~|[A-Z]:\\\\)[\w.-]+/', text)
    assert sys.prefix not in text
