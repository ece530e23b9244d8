"""The README: its example runs, its tree is that on disk, and its links lead somewhere."""

import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_of_a_model_in_memory(tmp_path, monkeypatch, tiny_model_folder, capsys):
    shutil.copytree(tiny_model_folder, tmp_path / "my-model")
    for name, word in (("lose", "secret"), ("keep", "public")):
        rows = [{"prompt": f"{word} {i}?", "completion": f"{word} {i * 7}."} for i in range(4)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(import grail\n.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 16
    exec(compile(example, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "US" in shown
    assert "frozen entries changed" in shown


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
