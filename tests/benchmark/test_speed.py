"""The command: what it refuses, where it writes, and two of its parts on a tiny model."""

import json
from pathlib import Path

import pytest
import speed
from races.outcome import WANTED


@pytest.fixture(autouse=True)
def _devices_as_they_were(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # main sets it: put back afterwards


def test_parts_run_once_on_a_tiny_model_and_fill_the_table(tmp_path, capsys, monkeypatch):
    """The parts in this process; the others have tests of their own, and processes besides."""
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    parts = ("training", "evaluation")
    assert speed.main(["--quick", "--only", ",".join(parts), "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for part in parts:
        text = (tmp_path / f"{part}.json").read_text()
        found = json.loads(text)
        assert {line["part"] for line in found["measurements"]} == {part}
        assert all(value > 0 for value in found["ratios"].values())
        for beginning in (name for name in WANTED if name.startswith(part)):
            named = [name for name in found["ratios"] if name.startswith(beginning)]
            assert named, beginning
            assert all(f"| {name} |" in shown for name in named)
        assert str(tmp_path) not in text


def test_a_part_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        speed.main(["--only", "scoring,sorting"])
    assert stopped.value.code == 2
    assert "no part sorting; parts: scoring" in capsys.readouterr().err


def test_without_a_device_nothing_is_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert speed.main(["--quick", "--device", "cuda", "--output", str(tmp_path)]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_trial_does_not_take_the_place_of_the_results():
    place = {
        words: speed._output(speed._options(words.split()))
        for words in ("", "--device cuda", "--quick", "--rows 4", "--quick --output there")
    }
    assert place[""] == speed.MEASURED / "cpu"
    assert place["--device cuda"] == speed.MEASURED / "cuda"
    assert place["--quick --output there"] == Path("there")
    assert {place["--quick"], place["--rows 4"]} == {speed.TRIED}


def test_a_part_that_fails_is_named_and_the_others_are_kept(monkeypatch, tmp_path, capsys):
    import races.growth
    import races.scoring
    from races.outcome import Outcome

    kept = Outcome("growth", ratios={"growth: scoring": 1.0})

    def fail(_):
        raise RuntimeError("the ways do not find the same scores")

    monkeypatch.setattr(races.scoring, "run", fail)
    monkeypatch.setattr(races.growth, "run", lambda _: kept)
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # chosen by the user: left alone
    assert speed.main(["--only", "scoring,growth", "--output", str(tmp_path)]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["growth.json"]
    written = json.loads((tmp_path / "growth.json").read_text())
    assert written["ratios"] == kept.ratios
    assert written["settings"]["freed_memory"] == "given back"
    told = capsys.readouterr().err
    assert "do not find the same scores" in told
    assert "speed: failed: scoring" in told
