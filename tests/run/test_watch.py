"""A process of a run that dies is named by the others, which end; the run then goes on."""

import json
import signal

import killed
import pytest
from safetensors.torch import load_file

from grail.cli.main import main
from grail.run.watch import GONE

SHARES = {"k_op_ur": 0.6, "k_op_rr": 0.6}
"""Of many tensors half is frozen: one process alone trains their free entries as vectors."""


def furthest(a, b):
    """The largest difference of two files of weights, relative to the largest entry."""
    a, b = load_file(a), load_file(b)
    largest = max(float(value.abs().max()) for value in b.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a | b) / largest


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "victim"), [(False, 1), (True, 0)])
def test_a_killed_process_is_named_and_one_alone_goes_on(parts, victim, tiny_config, tmp_path):
    sections = {"model": {"lora": None}, "teach": False, "localization": SHARES}
    optimizer = {"objective": "npo", "optimizer": "sgd"}
    file = tiny_config(rows=6, **sections, unlearning=optimizer)
    whole, broken = tmp_path / "run", tmp_path / "broken"
    words = ["run", str(file), "--output", str(broken)]
    codes, said = killed.start_both(words, victim, parts, tmp_path)
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1
    last = said[1 - victim].splitlines()[-1]
    assert last == f"grail: stopped: {GONE.format(victim, 2)}"
    assert "Traceback" not in said[1 - victim]
    state = json.loads((broken / "unlearned.checkpoint" / "state.json").read_text())
    assert state["step"] == 2
    assert main(words) == 0
    assert main(["run", str(file)]) == 0
    assert furthest(*(f / "unlearned" / "model.safetensors" for f in (broken, whole))) < 1e-6
    found, wanted = (json.loads((f / "results.json").read_text()) for f in (broken, whole))
    counts = ("entries", "frozen", "changed", "sha256_before")
    assert [found["freezing"][n] for n in counts] == [wanted["freezing"][n] for n in counts]
    assert wanted["freezing"]["frozen"] > 0
    for a, b in zip(found["rows"], wanted["rows"], strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-5, abs=1e-5), (a, b)
