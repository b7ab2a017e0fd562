"""A table in LaTeX, with booktabs and siunitx: at the size of the text where it fits, over pages where it must."""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace

from robustframe.report.layout import UNKNOWN, Column, Grid, Measured, TextCell, one_line, written
from robustframe.report.texts import Lines, cell_text, headed
from robustframe.terminal import text_width

_PAGE, _TOGETHER = 40, 12
"""Lines beyond which a table goes over pages, and up to which a group stays on one."""
_TEXT, _CHARACTER, _GAP = 345, 5, 8
"""Points: the width of an article's text, of a character on average, and between two columns."""
_SIZES = {"normalsize": 1.0, "small": 0.93, "footnotesize": 0.86, "scriptsize": 0.8, "tiny": 0.7}
"""Fonts and what they make of a width."""
_HEADS = {"Clean accuracy (%)": "Clean (%)", "Robust accuracy (%)": "Robust (%)", "Certified (%)": "Cert. (%)"}


def latex(grid: Grid) -> str:
    """Write a grid as a table of LaTeX; its first line names the packages it needs.

    The p-value of a number stands below it, and in a wide table its interval as well. A table of more than a page is a
    ``longtable``; a shorter one that is wider than the text all the same is shrunk to it.
    """
    folded = _wide(*_kept(grid, 1), folded=False) > 1.2 * _TEXT
    if folded and not grid.heading and grid.keys > 1:
        grid = replace(grid, heading=2 if grid.columns[0].name == "model" else 1)
    for dropped in (1, 3, 4):
        columns, groups = _kept(grid, dropped)
        body, wide = list(_body(groups, columns, folded=folded)), _wide(columns, groups, folded=folded)
        if len(body) <= _PAGE or wide * _SIZES["tiny"] <= _TEXT:
            break
    spec = "@{}" + "".join(_spec(column, cells, folded=folded) for column, cells in _each(columns, groups)) + "@{}"
    heads = " & ".join(_head(column, folded=folded) for column in columns) + r" \\"
    caption, named = _caption(grid, dropped), _label(grid)
    notes = [
        rf"\par\smallskip{{\footnotesize\sloppy $^{{{number}}}$ {_tex(text)}\par}}"
        for number, text in enumerate(grid.notes, 1)
    ]
    packages = r"% \usepackage{booktabs,graphicx,longtable,siunitx}"
    if len(body) > _PAGE:
        size = next((size for size, share in _SIZES.items() if share * wide <= _TEXT), "tiny")
        lines = _long(size, spec, heads, caption + named, body, _span(columns, folded=folded))
        return "\n".join([packages, *lines, *notes, r"\par}"]) + "\n"
    lines = [r"\begin{table}[t]", r"\centering\setlength{\tabcolsep}{4pt}"]
    lines += [rf"\caption{{{caption}}}\smallskip"] * bool(caption) + [named] * bool(named)
    lines += [_FIT, rf"\begin{{tabular}}{{{spec}}}", r"\toprule", heads, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([packages, *lines, r"\end{tabular}}", *notes, r"\end{table}"]) + "\n"


def _caption(grid: Grid, dropped: int) -> str:
    title = _tex(grid.title).rstrip(".")
    gone = [column.head.partition(" (")[0].partition(",")[0] for column in grid.columns if 2 < column.drop <= dropped]
    left = f"Left out to fit the page: {', '.join(dict.fromkeys(gone)).lower()}." if gone else ""
    return " ".join(filter(None, [rf"\textbf{{{title}.}}" if title else "", _tex(grid.caption), left]))


def _label(grid: Grid) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", grid.title.partition(":")[0].lower()).strip("-")
    return rf"\label{{tab:{name}}}" if name else ""


def _kept(grid: Grid, dropped: int) -> tuple[list[Column], list[tuple[str, Lines]]]:
    """What a reader sees of a grid without the columns that go first where there is little room."""
    columns, groups = headed(grid)
    # What no attack can break is said shortly enough to stay.
    kept = [at for at, column in enumerate(columns) if column.drop not in (1, *range(3, dropped + 1))]
    return [columns[at] for at in kept], [
        (heading, [[line[at] for at in kept] for line in lines]) for heading, lines in groups
    ]


_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""A table that is wider than the text is shrunk to it."""


def _long(size: str, spec: str, heads: str, caption: str, body: Sequence[str], span: int) -> list[str]:
    """A table over pages: its head stands on each of them."""
    return [
        rf"{{\{size}\setlength{{\tabcolsep}}{{4pt}}\setlength{{\LTcapwidth}}{{\linewidth}}",
        rf"\begin{{longtable}}{{{spec}}}",
        *[rf"\caption{{{caption}}}\\"] * bool(caption),
        *[r"\toprule", heads, r"\midrule", r"\endfirsthead"],
        *[r"\toprule", heads, r"\midrule", r"\endhead"],
        rf"\midrule\multicolumn{{{span}}}{{r@{{}}}}{{\emph{{continued}}}} \\",
        r"\endfoot",
        r"\bottomrule",
        r"\endlastfoot",
        *body,
        r"\end{longtable}",
    ]


def _body(groups: Sequence[tuple[str, Lines]], columns: Sequence[Column], *, folded: bool) -> Iterator[str]:
    """The lines below the head; those of a group stay on one page."""
    span = _span(columns, folded=folded)
    for number, (heading, lines) in enumerate(groups):
        if number and (heading or len(groups) < len(lines) * 4):
            yield r"\addlinespace"
        if heading:
            parts = r"\quad ".join(map(_tex, re.split("   ", heading)))
            yield rf"\multicolumn{{{span}}}{{@{{}}l}}{{\textit{{{parts}}}}} \\*"
        rows = [row for line in lines for row in _rows(line, columns, indented=bool(heading), folded=folded)]
        whole = "*" if len(rows) <= _TOGETHER else ""
        yield from (rf"{row} \\{whole}" for row in rows[:-1])
        yield rf"{rows[-1]} \\"


def _rows(line: Sequence[TextCell | Measured], columns: Sequence[Column], *, indented: bool, folded: bool) -> list[str]:
    """A line of the grid as rows: numbers first, below them what is folded."""
    cells = [_cell(cell, folded=folded) for cell in line]
    if indented:
        cells[0] = [r"\quad " + cells[0][0]]
    empty = ["" if folded or column.kind != "measured" else " & " for column in columns]
    high = max(map(len, cells))
    return [" & ".join(cell[at] if at < len(cell) else none for cell, none in zip(cells, empty)) for at in range(high)]


def _cell(cell: TextCell | Measured, *, folded: bool) -> list[str]:
    if isinstance(cell, TextCell):
        text = _tex(cell.text if cell.short is None else cell.short)
        return [text + (f"$^{{{','.join(map(str, cell.notes))}}}$" if cell.notes else "")]
    value, interval, p = written(cell.cell, cell.p, signed=cell.signed)
    unknown = "{--}" if not folded else "--"
    first, ends, tested = (
        unknown if value == UNKNOWN else value,
        *(f"${part}$" if part else "" for part in (interval, p)),
    )
    if folded:
        return [f"${first}$" if value != UNKNOWN else first, *filter(None, [ends, tested])]
    return [f"{first} & {ends}", *[f" & {tested}"] * bool(tested)]


def _head(column: Column, *, folded: bool) -> str:
    head = _HEADS.get(column.head, column.head)
    if column.kind != "measured":
        return _tex(head)
    if folded:
        # The twin stands below the measure.
        measure, _, rest = head.replace(" accuracy", "").partition(", ")
        lines = rf"{_tex(measure)}\\{_tex(rest.removesuffix(' (%)'))}"
        return rf"\shortstack[l]{{{lines}}}" if rest else _tex(head)
    return rf"\multicolumn{{2}}{{l}}{{{_tex(head)}}}"


def _span(columns: Sequence[Column], *, folded: bool) -> int:
    return sum(2 if column.kind == "measured" and not folded else 1 for column in columns)


def _each(
    columns: Sequence[Column], groups: Sequence[tuple[str, Lines]]
) -> Iterator[tuple[Column, Sequence[TextCell | Measured]]]:
    every = list(zip(*itertools.chain(*(lines for _, lines in groups)), strict=True))
    return zip(columns, every, strict=True)


def _spec(column: Column, cells: Sequence[TextCell | Measured], *, folded: bool) -> str:
    """A number with an interval is two columns: one that aligns its decimal point, and the interval."""
    if column.kind != "measured" or folded:
        return "r" if column.kind == "number" else "l"
    texts = [written(each.cell, None, signed=each.signed).value for each in cells if isinstance(each, Measured)]
    numbers = [text for text in texts if text != UNKNOWN]
    sign = "+" if any(number[0] in "+-" for number in numbers) else ""
    digits = max((len(number.lstrip("+-").partition(".")[0]) for number in numbers), default=1)
    return f"S[table-format={sign}{digits}.1{',retain-explicit-plus' if sign else ''}]@{{~}}l"


def _wide(columns: Sequence[Column], groups: Sequence[tuple[str, Lines]], *, folded: bool) -> float:
    """About how wide the table is, in points, in letters of the text's size."""
    points = 0.0
    for column, cells in _each(columns, groups):
        characters = 0
        for cell in cells:
            if isinstance(cell, TextCell):
                characters = max(characters, text_width(cell_text(cell) if cell.short is None else cell.short) + 2)
                continue
            value, interval, _ = written(cell.cell, None, signed=cell.signed)
            characters = max(characters, len(interval) if folded else len(value) + 1 + len(interval))
        head = _HEADS.get(column.head, column.head).replace(" accuracy", "")
        least = max(map(len, head.removesuffix(" (%)").split(", "))) if folded else len(head)
        points += _CHARACTER * max(characters, least) + _GAP
    return points


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


_THREAT = re.compile(r"\b(?P<norm>linf|l[012]):(?P<eps>\d[\d./]*(?:e-?\d+)?)")


def _tex(text: str) -> str:
    """Write a text so that it means itself, and threats as mathematics."""
    parts, last = [], 0
    for match in _THREAT.finditer(text := one_line(text)):
        norm, eps = match["norm"].removeprefix("l").replace("inf", r"\infty"), match["eps"].rstrip(".")
        parts += [_escaped(text[last : match.start()]), rf"$\ell_{norm} \leq {eps}$"]
        last = match.start("eps") + len(eps)
    return "".join([*parts, _escaped(text[last:])])


def _escaped(text: str) -> str:
    return "".join(_TEX[c] if c in _TEX else c if c.isascii() else _tex_foreign(c) for c in text)


def _tex_foreign(character: str) -> str:
    """Write a character that not every engine and font has: an accented letter, else its number in Unicode."""
    parts = list(unicodedata.normalize("NFD", character))
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _TEX_ACCENTS:
        return rf"\{_TEX_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"(U+{ord(character):04X})"
