"""A table as LaTeX."""

from grail.reporting.tables import BEST, MISSING, Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MISSING: "--",
    "→": r"$\rightarrow$",
}


def latex(table: Table) -> str:
    """Return one table in the style of booktabs, with its title as caption and its note below."""
    columns = "l" + "r" * (len(table.columns) - 1)
    rows = [" & ".join(map(escape_latex, table.columns)) + r" \\", r"\midrule"]
    for row in table.rows:
        rows.append(" & ".join([escape_latex(row[0]), *map(_latex_cell, row[1:])]) + r" \\")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\smallskip\footnotesize {escape_latex(table.note)}"] if table.note else []),
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Escape the characters that LaTeX treats as commands."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _latex_cell(cell: str) -> str:
    if cell.endswith(BEST):
        return rf"\textbf{{{escape_latex(cell[: -len(BEST)])}}}"
    return escape_latex(cell)
