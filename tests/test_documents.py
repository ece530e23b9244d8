"""The documents: links lead somewhere, words are spelt, nothing is stale or left out."""

import html
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmark/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", html.unescape(heading)).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_a_broken_link_and_a_missing_anchor_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two` (three)\n\n[a](none.md) [b](#four)\n")
    assert anchors(page) == {"one-two-three"}
    for broken in ("[a](none.md)", "[b](#four)"):
        page.write_text(f"# One\n\n{broken}\n")
        with pytest.raises(AssertionError):
            test_links_lead_somewhere(page)


def test_every_page_is_in_the_navigation_once():
    class Loader(yaml.SafeLoader):
        pass

    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def leaves(entry):
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [leaf for value in values for leaf in leaves(value)]

    named = leaves(site["nav"])
    on_disk = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(on_disk)
    assert site["strict"]
    assert site["theme"]["font"] is False


def test_the_commands_are_those_of_the_parser():
    place = ROOT / "tests" / "scripts" / "commands.py"
    spec = importlib.util.spec_from_file_location("commands_page", place)
    commands = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(commands)
    told = "python tests/scripts/commands.py"
    assert commands.PAGE.read_text(encoding="utf-8") == commands.written(), told


def test_the_comparison_answers_every_row_and_little_is_left():
    text = (DOCS / "comparison.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 44))
    assert all(answer.strip() for _, _, answer, _ in rows)
    assert sum("**not yet**" in answer for _, _, answer, _ in rows) <= 3


def test_words_are_spelt():
    words = ROOT / "tests" / "words.txt"
    assert words.read_text().split() == sorted(words.read_text().split())
    places = ("README.md", "CONTRIBUTING.md", "docs", "src", "examples", "benchmark/README.md")
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "--ignore-words", str(words), *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_misspelt_word_is_seen(tmp_path):
    (tmp_path / "page.md").write_text("This is the recieved page.\n")
    command = [sys.executable, "-m", "codespell_lib", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "recieved ==> received" in done.stdout


def test_the_hook_shows_what_lies_outside_as_a_path():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)

    class Page:
        class file:  # noqa: N801 - MkDocs' name
            src_uri = "results/x.md"

    text = "[a](../method.md#b) [c](../../README.md) ![d](../figures/e.png) [f](https://g.h)"
    shown = "[a](../method.md#b) c (`README.md`) ![d](../figures/e.png) [f](https://g.h)"
    assert hooks.on_page_markdown(text, Page) == shown


def test_the_figures_of_the_readme_are_small():
    for name in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if name.endswith(".png"):
            assert (ROOT / name).stat().st_size < 300_000


def test_what_the_readme_prints_is_what_was_measured():
    """The demo's lines, recomputed from the figures of its seed 0."""
    from grail.reporting.verdict import verdict
    from grail.results import Result, make_results

    kept = json.loads((ROOT / "benchmark" / "results" / "lasting.json").read_text())
    demo = kept["measurements"][0]
    rows = [
        Result(model, *name.split(".", 3), value, 24)
        for model in ("vanilla", "unlearned")
        for name, value in demo[model].items()
    ]
    said = verdict(make_results(rows, demo["freezing"], "")).sentences
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.partition("lines like these:")[2].split("```")[1]
    shown = re.findall(r"^- (.+\.)$", block, re.M)
    assert shown == said[: len(shown)]
    assert len(shown) >= 6
