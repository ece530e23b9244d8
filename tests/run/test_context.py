"""What stages work with, and what the digests of their inputs depend on."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from grail.config.run import parse_config
from grail.errors import InputError
from grail.model.forward import trainable
from grail.run import context as context
from grail.run.context import RunContext
from grail.run.inputs import read_inputs
from grail.training import accelerator


class Heard:
    def __init__(self):
        self.warnings = []

    def stage(self, name):
        raise AssertionError("context enter no stage")

    def skipped(self, name):
        raise AssertionError("context skip no stage")

    def warn(self, text):
        self.warnings.append(text)


def settings(folder: Path, model: Path, **data: object) -> dict[str, object]:
    for side in ("u", "r"):
        text = "".join(
            f'{{"prompt":"{side}{i}?","completion":"{side * 9} {i}"}}\n' for i in range(3)
        )
        (folder / f"{side}.jsonl").write_text(text, encoding="utf-8")
    return {
        "model": {"name": str(model)},
        "domains": {
            "d": {
                "unlearn": {"train": str(folder / "u.jsonl")},
                "retain": {"train": str(folder / "r.jsonl")},
            }
        },
        "data": {"template": "plain", **data},
        "general": {"train": None},
        "unlearning": {"objective": "ascent_descent"},
        "output": str(folder / "run"),
    }


@pytest.fixture
def make(tmp_path, tiny_model_folder):
    def made(**changes: object) -> RunContext:
        data = changes.pop("data", {})
        given = settings(tmp_path, tiny_model_folder, **data)
        changes["unlearning"] = {**given["unlearning"], **changes.get("unlearning", {})}
        config = parse_config({**given, **changes})
        return RunContext(config, read_inputs(config), Heard(), torch.device("cpu"))

    return made


def test_key_depends_on_the_sections_named_and_on_nothing_else(make):
    base = make()
    other = make(unlearning={"epochs": 3})
    assert base.key("model", "importance") == other.key("model", "importance")
    assert base.key("unlearning") != other.key("unlearning")
    assert base.key("seed") != base.key("seed", rows="x")


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("unlearning", "checkpoint_steps", 1),
        ("unlearning", "trackers", ["tensorboard"]),
        ("importance", "memory_gib", 1.5),
        ("teach", "checkpoint_steps", 1),
        ("data", "max_rows", 2),
        ("data", "max_val_rows", 2),
        ("evaluation", "general_tasks", ["mmlu"]),
        ("evaluation", "general_max_items", 2),
    ],
)
def test_key_ignores_what_changes_nothing_that_is_made(make, monkeypatch, section, name, value):
    monkeypatch.setattr(accelerator, "get_available_trackers", lambda: ["tensorboard"])
    plain = make(**{section: {}})
    assert plain.key(section) == make(**{section: {name: value}}).key(section)


def test_key_of_rows_that_are_cut_short_differs(make):
    """Their number is not in the section's part of the key: the digests of the rows tell."""
    whole, cut = make(), make(data={"max_rows": 2})
    keys = [m.key("data", rows=m.data("train")) for m in (whole, cut)]
    assert keys[0] != keys[1]
    assert whole.key("data") != make(data={"max_tokens": 99}).key("data")


def test_key_changes_with_the_version_of_grail(make, monkeypatch):
    made = make()
    before = made.key("seed")
    monkeypatch.setattr(context, "__version__", "0.0.0")
    assert made.key("seed") != before


@pytest.mark.parametrize("lora", [{"r": 2}, None])
def test_starting_over_is_a_model_that_was_just_loaded(make, tiny_model_folder, lora):
    made = make(model={"name": str(tiny_model_folder), "lora": lora}, seed=3)
    start = {n: p.detach().clone() for n, p in trainable(made.model).items()}
    model, places = made.model, [p.data_ptr() for p in made.model.parameters()]
    with torch.no_grad():
        for p in trainable(model).values():
            p.add_(1.0)
    made.start_over(3)
    assert made.model is model
    assert [p.data_ptr() for p in model.parameters()] == places
    assert all(torch.equal(p, start[n]) for n, p in trainable(model).items())
    made.start_over(4)
    same = all(torch.equal(p, start[n]) for n, p in trainable(model).items())
    assert same == (lora is None)  # only a fresh adapter is drawn


def test_the_seeds_of_stages_are_not_their_sections(make):
    """They stand in the keys by their value: a section that names the run's seed is no other."""
    assert make(teach=True).key("teach", "importance") == make(
        teach={"seed": 0}, importance={"seed": 9}
    ).key("teach", "importance")


@pytest.fixture
def model_copy(tiny_model_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    return folder


def test_key_changes_with_the_contents_of_the_model(make, model_copy):
    def keys():
        made = make(model={"name": str(model_copy)})
        return made.key("model", "seed"), made.key("seed")

    before = keys()
    file = model_copy / "generation_config.json"
    content, stat = file.read_bytes(), file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert keys() == before, "touched"
    changed = content.replace(b"\n}", b" }")
    assert len(changed) == len(content)
    file.write_bytes(changed)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with_model, without = keys()
    assert with_model != before[0]
    assert without == before[1], "the model counts where its section is named"
    file.write_bytes(content)
    assert keys() == before


def test_rows_longer_than_the_models_positions_are_refused(make, model_copy):
    file = model_copy / "config.json"

    def check(positions, **data):
        values = json.loads(file.read_text()) | {"max_position_embeddings": positions}
        file.write_text(json.dumps(values))
        quiet = {"generate": False}
        make(model={"name": str(model_copy)}, data=data, evaluation=quiet).check()

    check(18)  # <bos>, 3 + 2 of the prompt, 9 + 2 of the completion, <eos>
    with pytest.raises(InputError, match=r"^data\.max_tokens: the longest row has 18 tokens") as e:
        check(17)
    assert "the model has positions for 17" in str(e.value)
    assert "data.max_tokens to 17 or less" in str(e.value)
    check(17, max_tokens=17)


def test_sides_hold_the_train_rows_and_data_their_digests(make):
    made = make()
    assert {side: len(rows) for side, rows in made.sides().items()} == {
        ("d", "unlearn"): 3,
        ("d", "retain"): 3,
    }
    assert set(made.data("train")) == {"d.unlearn.train", "d.retain.train"}
    assert made.data("val", "general") == {}


def test_cut_completions_are_told_once(make):
    made = make(data={"max_tokens": 10})
    assert made.rows == made.rows
    assert len(made.listener.warnings) == 1
    assert "data.max_tokens" in made.listener.warnings[0]


CLOCK = "{{ strftime_now('%d %m %Y %S') }} {% for m in messages %}{{ m.content }}<eos>{% endfor %}"


def test_a_chat_template_is_told_the_date_of_the_settings(make, tmp_path, tiny_model_folder):
    model = tmp_path / "model"
    shutil.copytree(tiny_model_folder, model)
    (model / "chat_template.jinja").write_text(CLOCK)
    given = {"model": {"name": str(model)}}
    fixed, other = (
        make(**given, data={"template": "auto", **date}) for date in ({}, {"date": "2031-11-05"})
    )
    asked = [made.tokenizer.decode(made.rows[0].ids) for made in (fixed, other)]
    assert asked == [f"{day} 00 u0?<eos>uuuuuuuuu 0<eos>" for day in ("01 01 2025", "05 11 2031")]
    assert fixed.key("data") != other.key("data")


@pytest.mark.parametrize(
    ("lora", "dtype"), [(None, "bfloat16"), (None, "float32"), ({}, "bfloat16")]
)
def test_weights_that_training_rounds_are_told_before_it(make, tiny_model_folder, lora, dtype):
    """All weights in 16 bits are; an adapter under a base in 16 bits is float32 itself."""
    heard = []
    made = make(model={"name": str(tiny_model_folder), "lora": lora, "dtype": dtype})
    made.listener.warn = heard.append
    made.check()
    told = [text for text in heard if "Set model.dtype: float32" in text]
    assert len(told) == (lora is None and dtype == "bfloat16")


def test_before_the_facts_is_the_adapter_that_they_were_taught_on_top_of(make, finished_run):
    """Taught on a given adapter, and not on the base under it."""
    made = make(model={"name": str(finished_run / "vanilla")}, teach=True)
    given = {name: p.detach().clone() for name, p in trainable(made.model).items()}
    with torch.no_grad():
        for p in trainable(made.model).values():
            p.add_(1.0)
    before = made.before()
    assert before.keys() == given.keys()
    assert all(torch.equal(before[name], given[name]) for name in given)
    taken = make(model={"name": str(finished_run / "vanilla")})
    assert all((p == 0).all() for name, p in taken.before().items() if "lora_B" in name)


def test_a_head_that_few_bits_leave_in_full_is_named(make, monkeypatch):
    made = make()
    made.check()
    monkeypatch.setattr(context, "load_model", lambda *_: made.model)
    assert made.listener.warnings == []
    section = made.config.model.model_copy(update={"quantise": "nf4"})
    few = RunContext(
        made.config.model_copy(update={"model": section}), made.inputs, Heard(), made.device
    )
    few.check()
    (text,) = few.listener.warnings
    assert text.startswith("model.quantise: nf4 leaves model.embed_tokens and lm_head in full:")
    assert few.key("model") != made.key("model")
