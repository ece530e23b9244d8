"""What a model says by itself: written once, without what is to be lost, and measured as it is."""

from dataclasses import replace

import pytest
import torch

from grail.cli.main import main
from grail.config.file import load_config
from grail.data.words import words_of
from grail.files import read_json
from grail.handover.purge import knowing
from grail.handover.verify import verify
from grail.model.generate import end_tokens
from grail.progress import NullListener, silent
from grail.results import OWN_WORDS, read_results
from grail.run.directory import stamp
from grail.run.inputs import read_inputs
from grail.run.measure import values_of
from grail.run.neighbours import ANSWER, NEIGHBOURS, asked_itself, neighbours_of
from grail.run.pipeline import Run

COUNT = 24


@pytest.fixture
def run(finished):
    config = load_config(finished(), [f"evaluation.neighbours={COUNT}"])
    made = Run(config, read_inputs(config), NullListener(silent=True))
    made.context.take("vanilla")
    return made


def test_answers_are_the_models_own_greedy_ones(run):
    found = asked_itself(run.context, COUNT, silent)
    assert found
    model, tokenizer = run.context.model, run.context.tokenizer
    prompts = [row.sample.prompt for row in run.context.rows]
    for sample in found:
        assert sample.prompt not in prompts
        row, _ = run.context.encoder.encode(sample)
        ids, ends = list(row.ids[: row.start]), end_tokens(model, tokenizer, [row])
        most = min(row.start + ANSWER, run.config.data.max_tokens - 1)
        while len(ids) < most and not (len(ids) > row.start and ids[-1] in ends):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        said = tokenizer.decode(ids[row.start :], skip_special_tokens=True).strip()
        assert sample.completion == said
    begun = [s for s in found if any(s.prompt.startswith(p[: len(p) // 2]) for p in prompts)]
    assert 0 < len(begun) < len(found)


def test_what_holds_a_word_to_remove_is_dropped_and_nothing_else(run):
    context = run.context
    found = asked_itself(context, COUNT, silent)
    known = {
        word
        for row in (*context.rows, *context.general)
        for word in words_of(f"{row.sample.prompt} {row.sample.completion}")
    }
    said = {s: set(words_of(f"{s.prompt} {s.completion}")) for s in found}
    word = next(word for words in said.values() for word in sorted(words) if word not in known)
    first, *others = context.rows
    assert first.side == "unlearn"
    lost = replace(first.sample, completion=f"{first.sample.completion} {word}")
    context.rows = (replace(first, sample=lost), *others)
    again = asked_itself(context, COUNT, silent)
    kept = [sample for sample in found if word not in said[sample]]
    assert len(kept) < len(found)
    assert again[: len(kept)] == kept
    assert not any(word in words_of(f"{s.prompt} {s.completion}") for s in again)


def test_a_model_that_did_not_change_has_the_same_figures_to_the_bit(run):
    weights = stamp(run.folder / "vanilla")["weights"]
    take = run.context.take
    run.context.take = lambda _: take("vanilla")
    before, after = (
        [
            replace(value, model="")
            for value in values_of(run.context, name, weights)
            if value.domain == OWN_WORDS
        ]
        for name in ("vanilla", "unlearned")
    )
    assert len(before) == len(run.context.neighbours) > 0
    assert before == after


def test_a_run_that_asks_for_none_is_as_before(finished, tmp_path, capsys):
    file = finished()
    before = (tmp_path / "run" / "results.json").read_bytes()
    (tmp_path / "run" / NEIGHBOURS).write_text("{}")
    assert main(["run", str(file)]) == 0
    assert capsys.readouterr().err.count("kept evaluate") == 2
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    assert not (tmp_path / "run" / NEIGHBOURS).exists()


def test_they_go_with_the_run_to_its_end(finished, tmp_path, capsys):
    """Written once, measured, told, verified, and deleted by a purge."""
    file, folder = finished(evaluation={"neighbours": COUNT}), tmp_path / "run"
    assert main(["run", str(file)]) == 0
    assert "what the model says by itself" in " ".join(capsys.readouterr().out.split())
    rows = read_json(folder / NEIGHBOURS)["rows"]
    results = read_results(folder / "results.json")
    own = [row for row in results.rows if row.domain == OWN_WORDS]
    assert {(row.model, row.n) for row in own} == {(m, len(rows)) for m in ("vanilla", "unlearned")}
    assert "what the model says by itself" in (folder / "report.md").read_text()
    assert main(["run", str(file)]) == 0
    assert "kept neighbours" in capsys.readouterr().err
    modes = {(folder / name).stat().st_mode for name in (NEIGHBOURS, "evaluation/vanilla.json")}
    assert len(modes) == 1
    assert verify(folder, metrics=True).changes == []
    assert folder / NEIGHBOURS in [item.path for item in knowing(folder)]
    assert main(["purge", str(folder), "--yes"]) == 0
    assert not (folder / NEIGHBOURS).exists()
    assert verify(folder).changes == []


def test_an_edited_file_is_written_anew(run):
    weights = stamp(run.folder / "vanilla")["weights"]
    values_of(run.context, "vanilla", weights)
    rows, file = run.context.neighbours, run.folder / NEIGHBOURS
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"prompt"', b'"prompts"', 1))
    values_of(run.context, "vanilla", weights)
    assert file.read_bytes() == whole
    assert neighbours_of(run.context) == rows
