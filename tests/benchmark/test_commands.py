"""Every command that the benchmarks' pages name is there and starts."""

import re
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import claims
import publish
import pytest
import torch

from grail.comparison.settings import load_comparison
from grail.config.file import load_config
from grail.errors import InputError
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.inputs import read_inputs

PAGES = (claims.ROOT / "benchmark" / "README.md", *claims.ROOT.glob("docs/results/*.md"))
SHARED = claims.ROOT.parent / "shared" / "data"
TEXT = "".join(page.read_text(encoding="utf-8") for page in PAGES)
SCRIPTS = sorted(set(re.findall(r"python (benchmark/\w+\.py)", TEXT)))
FILES = sorted(set(re.findall(r"(benchmark/experiments/\w+\.yaml)", TEXT)))
BASES = {"pair", "lume_pair", "gemma", "five", "lasting_lume", "lasting_knowundo"}
"""Settings of runs, which comparisons share."""
NO_OPTIONS = ("audits", "claims", "publish", "run")
"""Scripts that take only folders, or nothing."""


def test_every_script_with_a_question_is_named_and_every_comparison_too():
    experiments = (claims.ROOT / "benchmark" / "experiments").glob("*.yaml")
    assert {Path(f).stem for f in FILES} >= {e.stem for e in experiments} - BASES
    scripts = {module.__name__ for module in publish.QUESTIONS.values()}
    assert {Path(s).stem for s in SCRIPTS} >= scripts


@pytest.mark.parametrize("name", publish.QUESTIONS)
def test_every_question_has_its_block_on_a_page(name):
    assert f"<!-- {name} -->" in TEXT


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(script, monkeypatch, capsys):
    """Its parser is read, and nothing is run."""
    assert (claims.ROOT / script).is_file()
    if Path(script).stem in NO_OPTIONS:
        return
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(claims.ROOT / script), run_name="__main__")
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("file", FILES)
def test_every_file_of_settings_is_valid(file, monkeypatch):
    """Where the data lie beside the checkout, their paths lead there, too."""
    monkeypatch.syspath_prepend(str(claims.ROOT / "benchmark"))
    path = claims.ROOT / file
    if Path(file).stem in BASES:
        domains, folder = load_config(path, ["output=x"]).model_dump()["domains"], path.parent
    else:
        comparison, folder = load_comparison(path, [])
        assert comparison.methods
        domains = comparison.base["domains"]
    for side in (side for domain in domains.values() for side in domain.values()):
        sources = [source for source in side.values() if source not in (None, "embedded")]
        assert not SHARED.is_dir() or all((folder / source).is_file() for source in sources)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no data beside the checkout")
@pytest.mark.filterwarnings(
    "ignore:data.max_tokens.*cuts:UserWarning"
)  # what is cut still has an answer
@pytest.mark.parametrize("name", ["five", "lume_pair", "pair"])
def test_the_rows_of_every_base_fit(name, tmp_path):
    base = claims.ROOT / "benchmark" / "experiments" / f"{name}.yaml"
    for longest, fits in ((), True), (("data.max_tokens=8",), False):
        config = load_config(base, [f"output={tmp_path}", *longest])
        context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
        with nullcontext() if fits else pytest.raises(InputError, match="no completion token"):
            assert context.rows
