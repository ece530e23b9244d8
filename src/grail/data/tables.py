"""Read rows from tables as people have them: CSV and TSV in any dialect, and spreadsheets.

Each row is a mapping from the header's names to text, unchecked; knows nothing of samples.
"""

import csv
import io
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from datetime import datetime, time
from pathlib import Path
from typing import Any

from grail.errors import InputError

Raw = tuple[str, Any]  # "line 7", and the row there or, where it is not readable, an InputError

_MARKS = ",;\t|"


def decoded(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 if it starts with that byte order mark."""
    try:
        content = path.read_bytes()
        wide = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: not UTF-8. Save the file as UTF-8.") from error


def separator(source: str) -> str:
    """Return what parts the cells of a CSV or TSV file; "" for a file of another kind.

    A first line ``sep=X``, as Excel writes it, says so; else it is a tab in a TSV file whose header
    has one, and what the header has most of in all others.
    """
    path = Path(source).expanduser()
    table = path.suffix.lower() in (".csv", ".tsv")
    return _separator(path, decoded(path))[0] if table else ""


def _separator(path: Path, text: str) -> tuple[str, int]:
    """Return what parts the cells, and how many lines stand before the header to say so."""
    first = re.split("[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    if named := re.fullmatch('"?sep=(.)"?', first, re.IGNORECASE):
        return named[1], 1
    unquoted = re.sub(f"(^|[{_MARKS}] *)(\"[^\"]*\"|'[^']*')", r"\1", first)
    if path.suffix.lower() == ".tsv" and "\t" in unquoted:
        return "\t", 0
    return max(_MARKS, key=unquoted.count), 0


def csv_rows(path: Path) -> list[Raw]:
    """Read rows under a header; a row is named by the line on which it starts.

    Quotes are doubled inside quoted cells; where that cannot be read, a backslash before them is
    tried. Cells are in single quotes if all of the header are, and begin after a space if all of
    the header do. Two columns of one name are refused.
    """
    text = decoded(path)
    mark, skipped = _separator(path, text)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # 131,072 else
    head = re.split("[\r\n]", text.lstrip("\r\n"))[skipped:][:1]
    names = "".join(head).split(mark)
    spaced = names[1:] != [] and all(name.startswith(" ") for name in names[1:])
    names = [name.strip() for name in names]
    quote = "'" if all(re.fullmatch("'[^']*'", name) for name in names) else '"'
    dialect: dict[str, Any] = {"delimiter": mark, "quotechar": quote, "strict": True}
    dialect["skipinitialspace"] = spaced  # `a, "b, c"`: else the quotes are part of the cell
    rows = _read(path, text, skipped, dialect)
    if "\\" + quote in text and any(isinstance(row, InputError) for _, row in rows):
        escaped = _read(path, text, skipped, dialect | {"doublequote": False, "escapechar": "\\"})
        rows = rows if any(isinstance(row, InputError) for _, row in escaped) else escaped
    return rows


def _read(path: Path, text: str, skipped: int, dialect: dict[str, Any]) -> list[Raw]:
    rows, header = list[Raw](), list[str]()
    reader, line = csv.reader(io.StringIO(text, newline=""), **dialect), 1
    try:
        for cells in reader:
            if cells and skipped:
                skipped = 0
            elif cells and not header:
                header = cells
                _check_header(path, header)
            elif cells and len(cells) == len(header):
                rows.append((f"line {line}", dict(zip(header, cells, strict=True))))
            elif cells:
                mark = dialect["delimiter"]
                what = "commas" if mark == "," else repr(mark)
                problem = f"{len(cells)} cells under {len(header)} names. Quote text with {what}."
                rows.append((f"line {line}", InputError(problem)))
            line = reader.line_num + 1
    except csv.Error as error:
        rows.append((f"line {line}", InputError(f"not valid CSV ({error}).")))
    return rows


def _check_header(path: Path, names: list[str]) -> None:
    """Refuse a second column of one name, by its number: names may be private without a header."""
    for number, name in enumerate(names):
        if name.strip() and name in names[:number]:
            raise InputError(
                f"{path}: columns {names.index(name) + 1} and {number + 1} have the same name. "
                "Keep one of them."
            )


def sheet_rows(path: Path, sheet: str) -> list[Raw]:
    """Read the rows of a spreadsheet (.xlsx) under its first line; numbers and dates become text.

    ``sheet`` "" is the only one that holds anything. InputError if openpyxl is not installed, the
    file is no spreadsheet, or it is not told which sheet is meant.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError(
            f"{path} needs openpyxl: pip install 'grail-unlearning[xlsx]', or save it as CSV."
        ) from error
    try:
        sheets = _cells(load_workbook(path, read_only=True, data_only=True))
    except Exception as error:  # of a zip file, of XML or of openpyxl: no common base class
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not a readable .xlsx file ({reason}).") from error
    filled = [name for name, lines in sheets.items() if any(map(any, lines))]
    if (sheet and sheet not in sheets) or (not sheet and len(filled) > 1):
        names, problem = ", ".join(sheets), f"no sheet '{sheet}'" if sheet else "several sheets"
        raise InputError(f"{path}: {problem}. Pick one by {path.name}#SHEET; here: {names}.")
    own = sheet or (filled[0] if filled else "")
    lines = sheets.get(own, [])
    if any(None in line for line in lines):
        _check_formulas(path, lines, _cells(load_workbook(path, read_only=True))[own])
    table = [(number, [_text(cell) for cell in line]) for number, line in enumerate(lines, 1)]
    table = [(number, cells) for number, cells in table if any(cells)]
    header = table[0][1] if table else []
    _check_header(path, header)
    named = [place for place, name in enumerate(header) if name.strip()]
    return [(f"line {n}", {header[i]: cells[i] for i in named}) for n, cells in table[1:]]


def _cells(book: Any) -> dict[str, list[list[Any]]]:
    """Return the cells of each sheet, in lines of one length.

    What a file says of its size is not believed: some programs write too little.
    """
    found = {}
    for page in book.worksheets:
        page.reset_dimensions()
        lines = [list(line) for line in page.iter_rows(values_only=True)]
        most = max(map(len, lines), default=0)
        found[page.title] = [line + [None] * (most - len(line)) for line in lines]
    book.close()
    return found


def _check_formulas(path: Path, values: list[list[Any]], formulas: list[list[Any]]) -> None:
    """Refuse a formula without its value: it would be read as an empty cell."""
    for number, (line, other) in enumerate(zip(values, formulas, strict=True), 1):
        for value, formula in zip(line, other, strict=True):
            if value is None and formula is not None:
                raise InputError(
                    f"{path} line {number}: a formula's value was not saved. Open the file in a "
                    "spreadsheet program and save it, or save it as CSV."
                )


def _text(cell: Any) -> str:
    """Return what stands in a cell as text; 5.0 is how a sheet keeps 5, and midnight a day."""
    if cell is None:
        return ""
    if isinstance(cell, datetime) and cell.time() == time():
        return cell.date().isoformat()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell if isinstance(cell, str) else str(cell)
