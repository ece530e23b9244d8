"""``grail settings``: what it prints, the page in docs/, and the help of other commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grail.cli.main import main
from grail.cli.settings import settings_tables
from grail.config.run import Config
from grail.config.schema import settings_of
from grail.errors import InputError

ROOT = Path(__file__).parents[2]


def test_a_section_and_a_key(capsys):
    assert main(["settings", "unlearning.until", "seed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("  ") and "=" in line.split("(")[0]] == [
        "  seed = 0  (whole number >= 0 and < 2147483648)",
        "  unlearning.until.row_accuracy = 0.1  (number >= 0 and <= 1 or null)",
        "  unlearning.until.domain_accuracy = null  (number >= 0 and <= 1 or null)",
    ]
    assert "      Seed of every random draw." in lines
    assert max(map(len, lines)) <= 80 + len("run: unlearning. ")


def test_without_a_key_all_settings_are_shown(capsys):
    assert main(["settings", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    of_the_run = {row["key"] for row in rows if row["section"].startswith("run")}
    assert of_the_run == {setting.key for setting in settings_of(Config)}
    assert {"section", "key", "default", "allowed", "help"} == set(rows[0])
    assert any(row["key"] == "methods.NAME.vary" for row in rows)


def test_an_unknown_key_is_one_error(capsys):
    assert main(["settings", "unlerning", "seed"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("grail: error: settings: unknown key 'unlerning'. Did you mean 'unlearn")
    with pytest.raises(InputError) as error:
        settings_tables(["a.b", "seed", "model.lora.rr"])
    assert len(error.value.problems) == 2
    assert "Did you mean 'model.lora.r'?" in error.value.problems[1]


def test_the_page_of_the_documentation_is_what_is_generated(capsys):
    main(["settings", "--markdown"])
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page, "run: grail settings --markdown > docs/settings.md"


@pytest.mark.parametrize(
    ("command", "named", "other"),
    [
        ("run", "unlearning    Stage 3", "methods"),
        ("plan", "localization  Stage 2", "methods"),
        ("demo", "model  ", "methods"),
        ("audit", "audit         What", "unlearning "),
        ("compare", "methods       How", "vanilla "),
    ],
)
def test_help_names_the_sections(command, named, other, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    _, _, sections = capsys.readouterr().out.partition("sections of --set")
    assert "grail settings SECTION" in sections
    assert named in sections
    assert other not in sections


def test_other_help_names_none(capsys):
    with pytest.raises(SystemExit):
        main(["env", "--help"])
    assert "sections" not in capsys.readouterr().out


def test_torch_is_not_needed():
    text = (
        "import sys; sys.modules['torch'] = None\n"
        "from grail.cli.main import main; sys.exit(main(['settings', 'seed']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", text],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "seed = 0" in ran.stdout
