"""A table in LaTeX, with booktabs and siunitx."""

import itertools
import re
import unicodedata
from collections.abc import Sequence

from robustframe.report.layout import UNKNOWN, Column, Grid, Measured, TextCell, one_line, written


def latex(grid: Grid) -> str:
    """Write a grid as a table of LaTeX; its first line names the packages it needs."""
    columns, groups = grid.shown()
    lines = [r"% \usepackage{booktabs,graphicx,siunitx}", r"\begin{table}[t]", r"\centering"]
    title = _tex(grid.title)
    if caption := " ".join(filter(None, [rf"\textbf{{{title.rstrip('.')}.}}" if title else "", _tex(grid.caption)])):
        lines.append(rf"\caption{{{caption}}}\smallskip")
    if label := re.sub(r"[^a-z0-9]+", "-", grid.title.lower()).strip("-"):
        lines.append(rf"\label{{tab:{label}}}")
    every = list(zip(*itertools.chain(*groups), strict=True))
    spec = "".join(_tex_column(column, cells) for column, cells in zip(columns, every, strict=True))
    heads = [rf"\multicolumn{{2}}{{l}}{{{_tex(c.head)}}}" if c.kind == "measured" else _tex(c.head) for c in columns]
    lines += [_TEX_FIT, rf"\begin{{tabular}}{{{spec}}}", r"\toprule", " & ".join(heads) + r" \\"]
    for group in groups:
        lines += [r"\midrule", *(" & ".join(map(_tex_cell, line)) + r" \\" for line in group)]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    for number, text in enumerate(grid.notes, start=1):
        lines.append(rf"\par\smallskip{{\footnotesize $^{{{number}}}$ {_tex(text)}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_TEX_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""A table that is wider than the text is shrunk to it."""


def _tex_column(column: Column, cells: Sequence[TextCell | Measured]) -> str:
    """A number with an interval is two columns: one that aligns its decimal point, and the interval."""
    if column.kind != "measured":
        return "r" if column.kind == "number" else "l"
    texts = [written(each.cell, None, signed=each.signed).value for each in cells if isinstance(each, Measured)]
    numbers = [text for text in texts if text != UNKNOWN]
    sign = "+" if any(number[0] in "+-" for number in numbers) else ""
    digits = max((len(number.lstrip("+-").partition(".")[0]) for number in numbers), default=1)
    return f"S[table-format={sign}{digits}.1{',retain-explicit-plus' if sign else ''}]@{{~}}l"


def _tex_cell(cell: TextCell | Measured) -> str:
    if isinstance(cell, TextCell):
        return _tex(cell.text) + (f"$^{{{','.join(map(str, cell.notes))}}}$" if cell.notes else "")
    value, *rest = written(cell.cell, cell.p, signed=cell.signed)
    return f"{'{--}' if value == UNKNOWN else value} & {', '.join(f'${part}$' for part in rest if part)}"


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    # After the end of a row, these two would be read as its arguments.
    "[": "{[}",
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}
_TEX_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u0327": "c"}


def _tex(text: str) -> str:
    return "".join(_TEX[c] if c in _TEX else c if c.isascii() else _tex_foreign(c) for c in one_line(text))


def _tex_foreign(character: str) -> str:
    """Write a character that not every engine and font has: an accented letter, else its number in Unicode."""
    parts = list(unicodedata.normalize("NFD", character))
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _TEX_ACCENTS:
        return rf"\{_TEX_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"(U+{ord(character):04X})"
