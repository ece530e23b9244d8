"""``--strict``: 3 where the verdict is not a pass."""

import argparse

import pytest

from grail.cli import strict
from grail.cli.main import main
from grail.results import Result, make_results, write_results

PROOF = {"entries": 9, "frozen": 1, "changed": 0, "sha256_before": "a", "sha256_after": "a"}


def results(us, rs):
    """A run of one domain, measured on enough rows, that knew all before."""
    values = {"vanilla": (0.0, 100.0), "unlearned": (us, rs)}
    rows = [
        Result(model, "d", side, "train", metric, value, 50)
        for model, pair in values.items()
        for side, metric, value in zip(("unlearn", "retain"), ("US", "RS"), pair, strict=True)
    ]
    rows += [Result(model, "general", "general", "val", "NLL", 2.0, 50) for model in values]
    return make_results(rows, PROOF, "")


@pytest.mark.parametrize(
    ("us", "rs", "given", "code"),
    [(95.0, 95.0, True, 0), (40.0, 95.0, True, 3), (95.0, 40.0, True, 3), (40.0, 95.0, False, 0)],
)
def test_without_an_audit_the_checks_of_the_run_decide(us, rs, given, code, tmp_path, capsys):
    write_results(tmp_path / "results.json", results(us, rs))
    assert strict.strict_code(argparse.Namespace(strict=given), tmp_path) == code
    assert bool(capsys.readouterr().err) == (code == 3)


def test_commands_take_the_option(finished_run, capsys):
    """The tiny run learnt nothing, so its verdict is no pass."""
    assert main(["report", str(finished_run), "--json"]) == 0
    assert main(["report", str(finished_run), "--json", "--strict"]) == 3
    assert "grail: --strict: fail: " in capsys.readouterr().err
    for command in ("run", "demo", "audit", "attest"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert "--strict" in capsys.readouterr().out
