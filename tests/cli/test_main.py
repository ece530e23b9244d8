"""The command line: exit codes, what goes to which stream, and who may work where."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from grail import __version__
from grail.cli import main as cli
from grail.cli.main import main
from grail.importance.self_check import Agreement
from grail.run.lock import alone

SOURCE = str(Path(__file__).parents[2] / "src")
HEAVY = ("torch", "transformers", "peft", "accelerate", "numpy", "rich", "pydantic", "yaml")


def python(text, *arguments):
    return subprocess.run(
        [sys.executable, "-c", text, *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_needs_no_heavy_import_and_little_time():
    text = (
        "import sys, time; began = time.perf_counter()\n"
        "from grail.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "print(time.perf_counter() - began, loaded, file=sys.stderr)"
    )
    found = python(text)
    seconds, loaded = found.stderr.split(" ", 1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 1
    for command in ("demo", "run", "score", "report", "compare", "validate", "plan", "env"):
        assert re.search(rf"^    {command} ", found.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), ([], 2), (["fly"], 2), (["run"], 2), (["score", "x", "--check", "0"], 2)],
)
def test_arguments_alone_decide_some_codes(arguments, code, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == code
    shown = capsys.readouterr()
    assert (shown.out == f"grail {__version__}\n") == (code == 0)
    assert bool(shown.err) == (code == 2)


def test_the_command_keeps_freed_memory(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("grail.cli.main.keep_freed", lambda: calls.append(True))
    assert main(["run", str(tmp_path / "none.yaml")]) == 2
    assert calls == [True]


def test_progress_goes_to_stderr_and_the_answer_to_stdout(tiny_config, tmp_path, capsys):
    assert main(["run", str(tiny_config())]) == 0
    shown = capsys.readouterr()
    assert "vanilla: started" in shown.err
    assert "started" not in shown.out
    assert "done" not in shown.out
    assert "frozen entries: unchanged bit for bit" in shown.out
    page = str(tmp_path / "run" / "report.html")
    assert f"report: {page}\nresult: {tmp_path / 'run' / 'unlearned'}; " in shown.out
    assert f"{tmp_path / 'run' / 'vanilla'} still knows what had to be lost." in shown.out
    assert all(f"grail {word} " in shown.out for word in ("ask", "audit", "export", "purge"))


def test_json_is_one_document_and_nothing_else(tiny_config, tmp_path, capsys):
    config, folder = str(tiny_config()), str(tmp_path / "run")
    expected = {
        ("validate",): {"rows", "warnings"},
        ("vanilla",): {"output", "vanilla"},
        ("score",): {"output", "score"},
        ("score", "--check", "2"): {"worst", "name", "samples", "precision", "allowed"},
        ("localize",): {"output", "localize"},
        ("unlearn",): {"output", "unlearn"},
        ("evaluate",): {"output", "outcome", "verdict", "summary", "freezing", "rows"},
        ("run",): {"output", "outcome", "verdict", "summary", "freezing", "rows"},
        ("report",): {"output", "outcome", "verdict", "summary", "freezing", "rows"},
    }
    for (command, *more), keys in expected.items():
        assert main([command, config, "--json", *more]) == 0
        document = json.loads(capsys.readouterr().out)  # fails on anything before or after it
        assert document.keys() >= keys
        assert document.get("output", folder) == folder
    assert main(["report", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == keys
    assert main(["run", folder + "x", "--json"]) == 2
    assert not capsys.readouterr().out


def test_single_stages_say_what_they_wrote(tiny_config, tmp_path, capsys):
    config = str(tiny_config())
    for stage, name in {"vanilla": "vanilla", "score": "scores", "unlearn": "unlearned"}.items():
        assert main([stage, config]) == 0
        assert capsys.readouterr().out == f"wrote: {tmp_path / 'run' / name}\n"


def test_check_says_how_far_the_two_ways_are_apart(finished, capsys):
    assert main(["score", str(finished()), "--check", "3"]) == 0
    out = capsys.readouterr().out
    assert "scores of 3 samples differ by at most" in out
    assert "Scored in float32, as a run does, the top sets have a Jaccard index of " in out
    assert "model.dtype" not in out


def test_check_names_the_setting_where_the_precision_moves_the_top_sets(finished, capsys):
    """The mixed rows of a tiny model in bfloat16, whose base is rounded before it is scored."""
    config = str(finished(model={"dtype": "bfloat16"}))
    assert main(["score", config, "--check", "3"]) == 0
    out = capsys.readouterr().out
    found = float(
        re.search(r"in bfloat16.* Jaccard index of ([0-9.]+) with those of float64", out)[1]
    )
    assert 0.5 < found < 0.99
    assert "They differ by more than 1 %, and so does the mask. Set model.dtype: float32." in out


@pytest.mark.parametrize(("worst", "code"), [(9e-6, 0), (2e-5, 1), (float("inf"), 1)])
def test_check_fails_where_the_two_ways_disagree(worst, code, finished, capsys, monkeypatch):
    config, found = str(finished()), Agreement(worst, "w.mean_sq", 3, "torch.float64")
    monkeypatch.setattr("grail.run.trainings.self_check", lambda *_: found)
    assert main(["score", config, "--check", "3"]) == code
    out = capsys.readouterr().out
    assert f"at most {worst:.2e} relative (allowed: 1e-05; at w.mean_sq, in torch.float64)" in out
    assert main(["score", config, "--check", "3", "--json"]) == code
    facts = json.loads(capsys.readouterr().out)
    assert facts["worst"] == (worst if worst < 1 else None)  # JSON knows no infinity
    assert (facts["allowed"], facts["precision"]) == (1e-5, "torch.float64")


def test_vanilla_alone_can_be_measured(tiny_config, tmp_path, capsys):
    file = tmp_path / "run" / "evaluation" / "vanilla.json"
    command = ["evaluate", str(tiny_config()), "--vanilla-only"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"wrote: {file}\n"
    assert not (tmp_path / "run" / "unlearned").exists()
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"output": str(tmp_path / "run"), "evaluate": str(file)}
    assert "kept evaluate vanilla" in shown.err


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_paraphrase_that_fills_max_tokens_is_told(command, finished, tmp_path, capsys):
    config = finished(data={"max_tokens": 64})
    file = tmp_path / "data" / "copyright_retain_val.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    file.write_text(json.dumps(row | {"paraphrases": ["q" * 70, "why?"]}) + "\n")
    assert main([command, str(config)]) == 0
    err = capsys.readouterr().err
    assert "after 1 of 2 paraphrases (first: one of copyright.retain.val.0)" in err


def test_env(capsys):
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(facts)
    assert f"grail          {__version__}" in lines


def test_demo_is_the_packaged_configuration(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "_run", lambda options: seen.append(options) or 0)
    assert main(["demo", "--set", "seed=1"]) == 0
    (options,) = seen
    assert (options.config.name, options.output, options.set) == (
        "demo.yaml",
        "runs/demo",
        ["seed=1"],
    )


def test_an_interruption_is_a_message_and_the_next_call_goes_on(
    tiny_config, tmp_path, capsys, monkeypatch
):
    from grail.training.loop import Loop

    config, inner = str(tiny_config()), Loop._step

    def interrupted(self, rows, state, rate, files):
        if state.step == 5:
            raise KeyboardInterrupt
        return inner(self, rows, state, rate, files)

    monkeypatch.setattr(Loop, "_step", interrupted)
    assert main(["run", config]) == 1
    err = capsys.readouterr().err
    assert err.endswith("goes on from the last finished stage or saved step.\n")
    steps = []
    monkeypatch.setattr(Loop, "_step", lambda *a: steps.append(a[2].step) or inner(*a))
    assert main(["run", config]) == 0
    assert steps[0] == 4  # the last checkpoint
    assert (tmp_path / "run" / "report.md").exists()


def test_divergence_is_a_message_and_exit_code_1(finished, capsys):
    config = str(finished(unlearning={"optimizer": "sgd", "max_grad_norm": None}))
    steep = ["--set", "unlearning.learning_rate=1.0e+30", "--set", "unlearning.retain_weight=1.0e9"]
    assert main(["run", config, *steep]) == 1
    err = capsys.readouterr().err
    assert "grail: stopped: " in err
    assert "Traceback" not in err


def test_two_at_work_in_one_directory(tiny_config, tmp_path, capsys):
    config, folder = str(tiny_config()), tmp_path / "run"
    with alone(folder):
        assert main(["run", config]) == 2
        assert f"another grail is at work in {folder}" in capsys.readouterr().err
        assert not (folder / "config.yaml").exists()
    assert main(["vanilla", config]) == 0


def test_a_terminated_command_says_how_to_go_on():
    text = (
        "import os, signal; from grail.cli import main as cli\n"
        "cli._env = lambda options: os.kill(os.getpid(), signal.SIGTERM)\n"
        "raise SystemExit(cli.main())"
    )
    done = python(text, "env")
    assert (done.returncode, done.stderr) == (1, f"grail: {cli.INTERRUPTED}\n")


def test_a_reader_that_has_enough_is_no_error(tiny_config):
    """As in `grail env --json | head -0`: the pipe is closed before anything is written."""
    text = (
        "import os, sys; from grail.cli import main as cli\n"
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "raise SystemExit(cli.main())"
    )
    done = python(text, "env", "--json")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_is_one_message(finished, tmp_path, monkeypatch, capsys):
    config = finished()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("grail.files.os.fsync", full)
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert main(["run", str(config), "--set", "evaluation.max_new_tokens=3"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"grail: stopped: {tmp_path / 'run'}")
    assert "No space left on device. What was finished is kept" in said
    monkeypatch.undo()
    assert main(["run", str(config)]) == 0
    assert (tmp_path / "run" / "results.json").read_bytes() == before
