"""Tables as LaTeX: what stands in a cell is printed as it is."""

import pytest

from grail.reporting.comparison.latex import escape_latex, latex
from grail.reporting.tables import MISSING, Table


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 50%", r"a\_b \& 50\%"),
        (r"\cmd{x}$#", r"\textbackslash{}cmd\{x\}\$\#"),
        ("~^<>|", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"),
        (f"1 ± 2 {MISSING}", r"1 $\pm$ 2 --"),
    ],
)
def test_latex_prints_what_stands_there(text, escaped):
    assert escape_latex(text) == escaped


def test_latex_table():
    found = latex(Table("A_1", ("Method", "x"), (("a&b", "1.0*"), ("c", "2")), "note %"))
    assert found.split("\n") == [
        r"\begin{table}",
        r"\centering",
        r"\caption{A\_1}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"Method & x \\",
        r"\midrule",
        r"a\&b & \textbf{1.0} \\",
        r"c & 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip\footnotesize note \%",
        r"\end{table}",
        "",
    ]
