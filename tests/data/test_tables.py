"""Tables as people have them: dialects, spreadsheets, and the cause of what is refused."""

import csv
import datetime
import sys
import zipfile

import pytest

from grail.data import tables
from grail.data.readers import read_rows
from grail.errors import InputError

ROWS = [["question", "answer"], ['She said "no", then', "l'été; à 5 h"], ["two\nlines", "a\tb|c"]]
WANTED = [dict(zip(ROWS[0], row, strict=True)) for row in ROWS[1:]]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("escape", [None, "\\"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_dialect_gives_the_same_rows(tmp_path, mark, quote, escape, encoding):
    file = tmp_path / "a.csv"
    how = {"delimiter": mark, "quotechar": quote, "quoting": csv.QUOTE_ALL}
    if escape:
        how |= {"doublequote": False, "escapechar": escape}
    with file.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, **how).writerows(ROWS)
    assert [row for _, row in read_rows(str(file))] == WANTED


def test_a_tsv_file_is_parted_by_tabs_though_its_header_has_more_commas(tmp_path):
    file = tmp_path / "a.TSV"
    file.write_text("prompt, please, now\tcompletion\nWho?\tShe.\n")
    assert read_rows(str(file)) == [
        ("line 2", {"prompt, please, now": "Who?", "completion": "She."})
    ]
    assert tables.separator(str(file)) == "\t"
    file.write_text("prompt;completion\nWho?;She.\n")
    assert tables.separator(str(file)) == ";"


def sheet(path, **pages):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, lines in pages.items():
        page = book.create_sheet(name)
        for line in lines:
            page.append(line)
    book.save(path)
    return str(path)


def test_a_spreadsheet_is_read_as_text(tmp_path):
    born = datetime.date(1988, 3, 9)
    lines = [["Question", "Answer", None], ["When?", born], [None, None], ["How many?", 5.0]]
    lines.append(["Half?", 0.5])
    source = sheet(tmp_path / "a.xlsx", rows=lines, empty=[])
    assert read_rows(source) == [
        ("line 2", {"Question": "When?", "Answer": "1988-03-09"}),
        ("line 4", {"Question": "How many?", "Answer": "5"}),
        ("line 5", {"Question": "Half?", "Answer": "0.5"}),
    ]


def test_a_sheet_is_picked_by_name(tmp_path):
    lines = [["prompt", "completion"], ["a", "b"]]
    source = sheet(tmp_path / "a.xlsx", one=lines, two=[["x", "y"], ["c", "d"]])
    assert read_rows(f"{source}#two") == [("line 2", {"x": "c", "y": "d"})]
    with pytest.raises(InputError, match=r"several sheets\. Pick one by a\.xlsx#SHEET; here: one"):
        read_rows(source)
    with pytest.raises(InputError, match="no sheet 'three'"):
        read_rows(f"{source}#three")


def test_no_spreadsheet_and_no_reader_are_told_apart(tmp_path, monkeypatch):
    file = tmp_path / "a.xlsx"
    file.write_text("prompt,completion\n")
    pytest.importorskip("openpyxl")
    with pytest.raises(InputError, match=r"is not a readable \.xlsx file"):
        read_rows(str(file))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"pip install 'grail-unlearning\[xlsx\]'"):
        read_rows(str(file))


def test_an_empty_sheet_has_no_rows(tmp_path):
    assert read_rows(sheet(tmp_path / "a.xlsx", a=[])) == []
    assert read_rows(sheet(tmp_path / "b.xlsx", a=[["prompt", "completion"]])) == []


def test_a_formula_without_its_value_is_refused(tmp_path):
    """Programs that do not compute write formulas alone: the prompt would be empty."""
    source = sheet(tmp_path / "a.xlsx", a=[["prompt", "completion"], ['=A1&"?"', "b"]])
    with pytest.raises(InputError, match="line 2: a formula's value was not saved"):
        read_rows(source)


def test_rows_beyond_the_size_that_a_sheet_claims_are_read(tmp_path):
    lines = [["prompt", "completion"], ["a", "b"], ["c", "d"]]
    source = sheet(tmp_path / "a.xlsx", a=lines)
    short = tmp_path / "short.xlsx"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(short, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"A1:B3"', b'"A1:B2"'))
    assert short.read_bytes() != (tmp_path / "a.xlsx").read_bytes()
    assert [row["prompt"] for _, row in read_rows(str(short))] == ["a", "c"]


def test_a_space_after_each_separator_is_no_part_of_a_cell(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('prompt, completion\n"Who, now?", "She, too."\nb, c\n')
    rows = [row for _, row in read_rows(str(file))]
    assert rows == [
        {"prompt": "Who, now?", "completion": "She, too."},
        {"prompt": "b", "completion": "c"},
    ]


def test_an_apostrophe_in_the_header_hides_no_separator(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("person's question;person's answer\na;b\n")
    assert tables.separator(str(file)) == ";"
    file.write_text("'a,b,c';'d'\na;b\n")
    assert tables.separator(str(file)) == ";"
