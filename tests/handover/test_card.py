"""The model card tells counts and figures, and no row."""

import json
import re
import shutil

import yaml

from grail.handover.card import model_card
from grail.handover.origin import Base, base_of
from grail.results import read_results


def test_the_card_tells_figures_and_no_row(finished_run, tiny_model_folder, tmp_path):
    base = base_of(str(tiny_model_folder))
    run = shutil.copytree(finished_run, tmp_path / "run")  # the card makes its key there
    card = model_card(run, "adapter", base, ["A remark."])
    header = yaml.safe_load(card.split("---\n")[1])
    assert header == {"library_name": "peft", "tags": ["machine-unlearning", "grail"]}
    assert "- A remark.\n" in card
    assert "| privacy | lost | train | 4 |\n| privacy | lost | val | 2 |" in card
    assert "seed 0" in card
    assert "\n- grail " in card
    assert "Not attacked" in card
    us = read_results(finished_run / "results.json").value(
        "unlearned", "privacy", "unlearn", "train", "US"
    )
    assert f"→ {us:.1f} |" in card
    rows = [file.read_text() for file in (finished_run.parent / "data").glob("*.jsonl")]
    texts = [json.loads(line) for text in rows for line in text.splitlines()]
    told = [t for row in texts for t in row.values() if len(t) > 5 and t in card]
    assert texts
    assert not told


def test_a_hub_base_and_an_audit_are_named(finished, tmp_path):
    finished()
    run = tmp_path / "run"
    base = Base("owner/name", "owner/name", True, "")
    assert yaml.safe_load(model_card(run, "merge", base, []).split("---\n")[1]) == {
        "library_name": "transformers",
        "base_model": "owner/name",
        "tags": ["machine-unlearning", "grail"],
    }


def test_the_sentences_of_the_audit_are_in_it(finished, tmp_path, monkeypatch):
    finished()
    found = {"outcome": "undecided", "passed": False, "oracle": None, "sentences": ["It | came."]}
    monkeypatch.setattr("grail.handover.card.read_audit", lambda folder: found)
    card = model_card(tmp_path / "run", "delta", Base("b", "b", False, ""), [])
    assert "Outcome: undecided (not passed), without a model that never saw the rows" in card
    assert "- It \\| came.\n" in card


def test_the_digest_is_keyed(finished, tmp_path):
    finished()
    run, base = tmp_path / "run", Base("b", "b", False, "")
    (key := run / "attestation.key").unlink(missing_ok=True)
    found = [re.search(r"`([0-9a-f]{64})`. No row", model_card(run, "merge", base, []))[1]]
    assert key.stat().st_mode & 0o077 == 0
    found += [re.search(r"`([0-9a-f]{64})`. No row", model_card(run, "merge", base, []))[1]]
    key.unlink()
    found += [re.search(r"`([0-9a-f]{64})`. No row", model_card(run, "merge", base, []))[1]]
    assert found[0] == found[1] != found[2]
