"""How progress looks: plain lines in a file, bars in a terminal, and names shown as they are."""

import io

import pytest
from rich.console import Console

from grail.cli import terminal
from grail.cli.terminal import Terminal, duration, render
from grail.reporting.tables import Table


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(terminal, "time", found)
    return found


def console(**more):
    return Console(file=io.StringIO(), width=100, **more)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (10861.0, "181 min 1 s")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_file_gets_a_line_a_minute(clock):
    out = console()
    with Terminal(out).stage("unlearn") as tick:
        tick(0, 10, "before")
        clock.now += 30
        tick(1, 10, "too early")
        clock.now += 31
        tick(2, 10, "nll 1.00")
        clock.now += 59
        tick(3, 10, "too early")
        clock.now += 2
        tick(4, 10, "nll 0.50")
    assert out.file.getvalue().splitlines() == [
        "unlearn: started",
        "unlearn: 2/10, 4 min 4 s left, nll 1.00",  # 61 s for two steps
        "unlearn: 4/10, 3 min 3 s left, nll 0.50",
        "done unlearn (2 min 2 s)",
    ]


def test_a_tick_without_work_done_divides_by_nothing(clock):
    out = console()
    with Terminal(out).stage("score") as tick:
        clock.now += 100
        tick(0, 10, "nothing yet")
    assert out.file.getvalue().splitlines() == ["score: started", "done score (1 min 40 s)"]


def test_the_time_left_follows_from_the_last_ticks_alone(clock):
    pace = terminal.Pace()
    assert pace.left(500, 1000) == ""  # 500 were done before
    clock.now += 100
    assert pace.left(501, 1000) == duration(499 * 100) + " left"  # the first step is slow
    for step in range(502, 502 + terminal.RECENT):
        clock.now += 2
        left = pace.left(step, 1000)
    assert left == duration(2 * (1000 - step)) + " left"
    assert pace.left(0, 10) == ""  # another count
    clock.now += 3
    assert pace.left(1, 10) == "27 s left"


def test_a_stage_that_fails_is_not_done():
    out = console()
    with pytest.raises(KeyError), Terminal(out).stage("score"):
        raise KeyError
    assert out.file.getvalue() == "score: started\n"


@pytest.mark.parametrize("name", ["score [bold]x[/bold]", "a [/] b", r"back\[red]slash"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_names_and_notes_are_no_markup(name, is_terminal, clock):
    out = console(force_terminal=is_terminal, color_system=None)
    shown = Terminal(out)
    with shown.stage(name) as tick:
        clock.now += 61
        tick(1, 2, f"note {name}")
    shown.skipped(name)
    shown.warn(name)
    text = out.file.getvalue()
    assert f"done {name} (1 min 1 s)" in text
    assert f"kept {name} (finished before, same inputs)" in text
    assert f"warning: {name}" in text
    if not is_terminal:
        assert f": 1/2, note {name}" in text


def test_a_terminal_gets_a_bar():
    out = console(force_terminal=True, color_system=None)
    with Terminal(out).stage("evaluate") as tick:
        tick(3, 7, "rows read")
    text = out.file.getvalue()
    assert "3/7" in text
    assert "started" not in text


def test_tables_show_their_cells_as_they_are():
    out = console()
    table = Table("The [red]title", ("Domain", "[b]Side", "US"), (("[i]d", r"s\[b]", "1.0"),))
    out.print(render(table, out.width))
    text = out.file.getvalue()
    assert all(cell in text for cell in ("The [red]title", "[b]Side", "[i]d", r"s\[b]", "1.0"))


def test_no_cell_is_cut():
    word = "".join(map(chr, range(0x4E00, 0x4E00 + 70)))
    out = Console(file=io.StringIO(), width=60)
    table = Table("T", ("", word[:30], "B"), (("x", word, "1"), (word[::-1], "y", "2")))
    out.print(render(table, out.width))
    text = out.file.getvalue()
    assert all(text.count(sign) >= 2 for sign in word)


def test_texts_are_broken_over_lines_before_figures_are():
    attack = "a tenth of the rows taught again (relearn-few after 10 steps at 0.002)"
    columns = ("Found", "Attack", "Known %", "Never knew it %")
    rows = tuple((word, attack, f"{n}2.4 \u00b1 8.8", "35.1") for n, word in enumerate(("a", "b")))
    out = Console(file=io.StringIO(), width=60)
    out.print(render(Table("T", columns, rows), out.width))
    lines = out.file.getvalue().splitlines()
    assert all(sum(row[2] in line for line in lines) == 1 for row in rows)
    assert sum("35.1" in line for line in lines) == 2
    text = " ".join(line[:46].strip() for line in lines)
    assert all(text.count(word) >= 2 for word in attack.split())  # no word is broken


@pytest.mark.parametrize("room", [60, 80])
def test_texts_keep_room_beside_many_figures(room):
    names = ("copyright", "unlearn", "train")
    columns = ("Domain", "Side", "Part", *(f"metric {n}" for n in range(6)))
    out = Console(file=io.StringIO(), width=room)
    rows = ((*names, *["100.0 \u2192 12.3"] * 6),) * 2
    out.print(render(Table("T", columns, rows), out.width))
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= room
    found = "".join(lines).replace(" ", "")
    assert found.count("100.0") == found.count("12.3") == 12 or room < 80
    starts = [line.split()[0] for line in lines if line.strip() and line.split()[0][0] in "cu"]
    assert "".join(starts).count("c") >= 2  # a text column is not squeezed out
