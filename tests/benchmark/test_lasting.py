"""What the script on removal that lasts counts in a run's answers, and shows of its figures."""

import json

import lasting
import pytest
from readings import result


def test_answers_that_are_no_sentence_are_counted(tmp_path):
    texts = [
        "She is old.",
        "1999.",
        "2012-01-01 2012-01-01",
        "He is a man, he is a man.",
        "12 a",
        "",
    ]
    values = [{"side": "unlearn", "generation": text} for text in texts]
    values.append({"side": "retain", "generation": "7"})
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "unlearned.json").write_text(json.dumps({"values": values}))
    assert lasting.answers(tmp_path) == {"asked": 6, "bare": 4, "loops": 2}


def test_a_run_without_texts_has_no_answers(tmp_path):
    (tmp_path / "evaluation").mkdir()
    file = tmp_path / "evaluation" / "unlearned.json"
    file.write_text(json.dumps({"values": [{"side": "unlearn", "accuracy": 0.5}]}))
    assert lasting.answers(tmp_path) == {"asked": 0, "bare": 0, "loops": 0}


def test_lines_hold_the_worst_of_each_attack_and_means_over_domains():
    found = result("lasting")["measurements"]
    lines = {(one["method"], one["seed"]): one for one in lasting.lines(found)}
    for one in found:
        own = lines[one["method"], one["seed"]]["summary"]["unlearned"]["train"]
        for attack in ("relearn-few", "relearn-other", "relearn-unrelated"):
            points = [row["beyond"] for row in one["known"] if row["attack"].startswith(attack)]
            points = [p for p in points if p is not None]  # none: the run was not attacked
            assert own.get(f"{attack} beyond") == max(points, default=None)
        for model, method in (("vanilla", "vanilla"), ("oracle", "exact")):
            values = lines[method, one["seed"]]["summary"]["unlearned"]["train"]
            kept = [one[model][f"{domain}.retain.val.RS"] for domain in ("privacy", "copyright")]
            assert values["retain val"] == pytest.approx(sum(kept) / 2)
            assert not any(name.endswith("beyond") for name in values)
        left = [
            one["unlearned"][f"{domain}.unlearn.train.US"] for domain in ("privacy", "copyright")
        ]
        assert own["known"] == pytest.approx(100 - sum(left) / 2)


def test_a_copied_run_keeps_what_methods_share_alone(tmp_path):
    for name in ("vanilla/weights", "scores/a", "rewrites.json", "config.yaml", *lasting.MADE):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name in ("audit", "unlearned") else path.write_text(name)
    lasting.copy_run(tmp_path / "run", tmp_path / "other")
    left = {f.relative_to(tmp_path / "other").as_posix() for f in (tmp_path / "other").rglob("*")}
    assert left - {"evaluation"} == {
        *("vanilla", "vanilla/weights", "scores", "scores/a", "rewrites.json", "config.yaml")
    }


def test_the_most_extractable_is_the_relearning_furthest_above_the_oracle():
    def entry(attack, amount, beyond, domain="a"):
        place = {"domain": domain, "side": "unlearn", "part": "train", "metric": "ES"}
        row = place | {"value": 30.0, "n": 4, "change": 5.0, "error": 1.0} | beyond
        return {"model": "unlearned", "attack": attack, "amount": amount, "rows": [row]}

    measured = [
        entry("plain", "plain", {"beyond": 50.0}),
        entry("relearn-few", "10", {"beyond": 3.0}),
        entry("relearn-other", "20", {"beyond": 9.0}),
        entry("relearn-other@0.1", "20", {}),  # a single rate has no worst case to compare with
        entry("relearn-few", "20", {"beyond": 70.0}, domain="b"),
    ]
    found = lasting.most_extractable({"measured": measured, "oracle": "seen"}, "a")
    assert (found["attack"], found["amount"], found["beyond"]) == ("relearn-other", "20", 9.0)


def test_a_copy_that_broke_off_is_no_run(tmp_path, monkeypatch):
    work, tmp_path = tmp_path, tmp_path / "0"
    (tmp_path / "run").mkdir(parents=True)
    (tmp_path / "run" / "results.json").write_text("{}")

    def breaks(path, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(lasting.Path, "unlink", breaks)
    with pytest.raises(KeyboardInterrupt):
        lasting.copy_run(tmp_path / "run", tmp_path / "other")
    assert [folder.name for folder in work.glob("[0-9]*/*")] == ["run"]  # what is collected
    monkeypatch.undo()
    lasting.copy_run(tmp_path / "run", tmp_path / "other")
    assert not (tmp_path / "other" / "results.json").exists()
