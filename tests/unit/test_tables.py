"""One table in four formats: what is shown, what is left unknown, and what a hostile name cannot do."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from robustframe.errors import InputError
from robustframe.report.arrange import TableStyle
from robustframe.report.layout import Cell, Table, TableRow, Written, grid, written
from robustframe.report.tables import FORMATS, render
from robustframe.terminal import text_width

LINF = "linf:8/255"


def _pair(model: str, coherence: float | None = 0.123, threat: str = LINF) -> tuple[TableRow, ...]:
    return (
        TableRow(model, coherence, "feed-forward", threat, Cell(0.913, 0.894, 0.929), Cell(0.041, 0.03, 0.055)),
        TableRow(model, coherence, "recurrent", threat, Cell(0.917, 0.899, 0.932), Cell(0.5, 0.46, 0.54)),
        TableRow(
            model,
            coherence,
            "difference",
            threat,
            Cell(0.004, -0.003, 0.011),
            Cell(0.459, 0.42, 0.5),
            0.39,
            1e-9,
        ),
    )


PLAIN_ROW = TableRow("resnet", None, "—", LINF, Cell(0.95, 0.94, 0.96), Cell(), note="robust: no attack has run")
TABLE = Table("Pairs", "95 % intervals.", (*_pair("chain"), PLAIN_ROW))

MARKDOWN = """\
**Pairs**

| Model | Coherence | Twin | Threat | Clean accuracy (%) | Robust accuracy (%) |
| :-- | --: | :-- | :-- | :-- | :-- |
| chain | 0.123 | feed-forward | linf:8/255 | 91.3 [89.4, 92.9] | 4.1 [3.0, 5.5] |
|  |  | recurrent |  | 91.7 [89.9, 93.2] | 50.0 [46.0, 54.0] |
|  |  | difference |  | +0.4 [-0.3, +1.1], p = 0.39 | +45.9 [+42.0, +50.0], p < 0.001 |
| resnet | – | —¹ | linf:8/255 | 95.0 [94.0, 96.0] | – |

95 % intervals.

¹ robust: no attack has run
"""

LATEX = r"""% \usepackage{booktabs,graphicx,longtable,siunitx}
\begin{table}[t]
\centering\setlength{\tabcolsep}{4pt}
\caption{\textbf{Pairs.} 95 \% intervals.}\smallskip
\label{tab:pairs}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{@{}llS[table-format=+2.1,retain-explicit-plus]@{~}lS[table-format=+2.1,retain-explicit-plus]@{~}l@{}}
\toprule
Model & Threat & \multicolumn{2}{l}{Clean (\%)} & \multicolumn{2}{l}{Robust (\%)} \\
\midrule
\multicolumn{6}{@{}l}{\textit{chain\quad coherence 0.123}} \\*
\quad feed-forward & $\ell_\infty \leq 8/255$ & 91.3 & $[89.4, 92.9]$ & 4.1 & $[3.0, 5.5]$ \\*
\quad recurrent &  & 91.7 & $[89.9, 93.2]$ & 50.0 & $[46.0, 54.0]$ \\*
\quad difference &  & +0.4 & $[-0.3, +1.1]$ & +45.9 & $[+42.0, +50.0]$ \\*
 &  &  & $p = 0.39$ &  & $p < 0.001$ \\
\addlinespace
resnet$^{1}$ & $\ell_\infty \leq 8/255$ & 95.0 & $[94.0, 96.0]$ & {--} &  \\
\bottomrule
\end{tabular}}
\par\smallskip{\footnotesize\sloppy $^{1}$ robust: no attack has run\par}
\end{table}
"""

CSV = """\
model,coherence,twin,threat,clean,clean_low,clean_high,robust,robust_low,robust_high,p_clean,p_robust,note
chain,0.123,feed-forward,linf:8/255,0.913,0.894,0.929,0.041,0.03,0.055,,,
chain,0.123,recurrent,linf:8/255,0.917,0.899,0.932,0.5,0.46,0.54,,,
chain,0.123,difference,linf:8/255,0.004,-0.003,0.011,0.459,0.42,0.5,0.39,1e-09,
resnet,,,linf:8/255,0.95,0.94,0.96,,,,,,robust: no attack has run
""".replace("\n", "\r\n")

TERMINAL = """\
Pairs
──────────────────────────────────────────────────────────────────────────────────────
Model           Threat      Clean %                     Robust %
──────────────────────────────────────────────────────────────────────────────────────
chain   coherence 0.123
  feed-forward  linf:8/255  91.3 [89.4, 92.9]             4.1 [3.0, 5.5]
  recurrent                 91.7 [89.9, 93.2]            50.0 [46.0, 54.0]
  difference                +0.4 [-0.3, +1.1] p = 0.39  +45.9 [+42.0, +50.0] p < 0.001
resnet¹         linf:8/255  95.0 [94.0, 96.0]               –
──────────────────────────────────────────────────────────────────────────────────────
95 % intervals.
¹ robust: no attack has run
"""


@pytest.mark.parametrize(
    ("format", "expected"), [("md", MARKDOWN), ("tex", LATEX), ("csv", CSV), ("terminal", TERMINAL)]
)
def test_a_small_table_reads_as_agreed(format: str, expected: str) -> None:
    assert render(TABLE, format) == expected


@pytest.mark.parametrize(
    ("cell", "p", "signed", "expected"),
    [
        (Cell(0.913, 0.894, 0.929), None, False, Written("91.3", "[89.4, 92.9]", "")),
        (Cell(0.913), 0.5, False, Written("91.3", "", "p = 0.50")),
        (Cell(), 0.5, True, Written("–", "", "")),
        (Cell(0.0, 0.0, 0.004), None, False, Written("0.0", "[0.0, 0.4]", "")),
        (Cell(-0.0001, -0.01, 0.0001), 1.0, True, Written("0.0", "[-1.0, 0.0]", "p = 1.00")),
        (Cell(-0.02, -0.03, -0.01), 0.00099, True, Written("-2.0", "[-3.0, -1.0]", "p < 0.001")),
        (Cell(1.0, 0.996, 1.0), 0.001, False, Written("100.0", "[99.6, 100.0]", "p = 0.001")),
        (Cell(0.1), 0.0994, True, Written("+10.0", "", "p = 0.099")),
        (Cell(0.1), 0.0996, True, Written("+10.0", "", "p = 0.10")),
    ],
)
def test_numbers_are_written_for_a_paper(cell: Cell, p: float | None, signed: bool, expected: Written) -> None:
    assert written(cell, p, signed=signed) == expected


def test_rows_are_grouped_by_model_then_threat_then_twin_whatever_their_order() -> None:
    rows = [*_pair("b"), *_pair("a"), *_pair("b", threat="l2:0.5"), *_pair("a", threat="l2:0.5")]
    shuffled = Table("t", "", (rows[0], *reversed(rows[1:])))
    found = [(r["model"], r["threat"], r["twin"]) for r in csv.DictReader(io.StringIO(render(shuffled, "csv")))]
    twins = ("feed-forward", "recurrent", "difference")
    assert found == [(m, t, w) for m in ("b", "a") for t in (LINF, "l2:0.5") for w in twins]


def test_the_coherence_is_printed_once_a_model_and_may_be_given_on_one_row_only() -> None:
    first, *others = _pair("chain", None)
    rows = (first, *others, TableRow("chain", 0.777, "recurrent", "l2:1", Cell(0.5), Cell(0.5)))
    for format in ("md", "tex", "terminal"):
        assert render(Table("t", "", rows), format).count("0.777") == 1
    assert render(Table("t", "", rows), "csv").count("0.777") == 4


def test_columns_that_nobody_filled_are_left_out() -> None:
    text = render(Table("t", "", (PLAIN_ROW,)), "md")
    assert "Coherence" not in text
    assert "Twin" not in text
    assert "| resnet¹ | linf:8/255 | 95.0 [94.0, 96.0] | – |" in text


def test_unknown_is_never_zero() -> None:
    table = Table("t", "", (TableRow("m", None, "—", LINF, Cell(), Cell()),))
    (row,) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert {row[name] for name in ("coherence", "clean", "clean_low", "robust", "p_clean", "p_robust")} == {""}
    for format in ("md", "tex", "terminal"):
        assert "0.0" not in render(table, format)


def test_the_csv_keeps_every_digit() -> None:
    value = 2 / 3
    (row,) = csv.DictReader(
        io.StringIO(render(Table("t", "", (TableRow("m", None, "—", LINF, Cell(value), Cell()),)), "csv"))
    )
    assert float(row["clean"]) == value


def test_the_terminal_table_fits_100_columns_and_has_no_control_characters() -> None:
    widest = Cell(-0.1234, -0.1567, -0.1012)
    rows = (
        *_pair("fashion-mnist-conv-chain-low-coherence-seed-3"),
        TableRow("x", 0.5, "difference", "linf:16/255", widest, widest, 1e-5, 1e-5),
        TableRow("Carmon2019Unlabeled-wide-28-10", None, "—", LINF, Cell(0.95, 0.94, 0.96), Cell()),
    )
    text = render(Table("Title", "caption " * 40, rows), "terminal")
    assert max(map(len, text.splitlines())) <= 100
    assert all(character.isprintable() or character == "\n" for character in text)


def test_running_text_is_no_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("", "caption " * 40, (TableRow("m", None, "—", "linf:1", Cell(0.5), Cell(0.25)),))
    for columns, widest in (("80", 80), ("20", 40), ("300", 100), ("", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        longest = max(map(len, render(table, "terminal").splitlines()))
        assert widest - len("caption ") < longest <= widest


WORST = Table(
    "Title: data test, 1,000 examples, linf:16/255, l2:1",
    "caption " * 40,
    tuple(
        replace(row, model=model, threat=threat, certified=None if row.twin == "difference" else 0.1, verdict=verdict)
        for model in ("fashion-mnist-conv-chain-low-coherence-seed-3", "b")
        for threat in ("linf:16/255", "l2:1")
        for row, verdict in zip(_pair(model), ("sound", "checks not finished", ""))
    ),
)


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("group_by", ["model", "threat"])
def test_a_table_fits_the_terminal_and_says_what_it_left_out_for_that(
    columns: int, pairs: bool, group_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = render(WORST, "terminal", TableStyle(pairs=pairs, group_by=group_by))
    assert max(map(text_width, text.splitlines())) <= columns
    for needed in ("4.1", "50.0", "+45.9", "[+42.0, +50.0]", "p < 0.001", "checks not finished"):
        assert needed in " ".join(text.split()), needed
    # Beside each other, certificates are there only where they are asked for.
    for name, number in [("clean", "91.3"), *[("certified", "10.0")] * (not pairs)]:
        _, _, gone = text.partition(f"Left out to fit {columns} columns: ")
        assert (number in text) is not (name in gone)


def test_a_pair_of_one_threat_keeps_every_accuracy_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = tuple(replace(row, certified=0.1, verdict="sound") for row in _pair("chain"))
    text = render(Table(f"Pairs, {LINF}", "", rows), "terminal")
    assert "Left out" not in text
    assert "  recurrent     91.7 [89.9, 93.2]   50.0 [46.0, 54.0]    10.0         sound" in text
    assert "                     p = 0.39            p < 0.001" in text


def test_a_grid_of_texts_and_one_of_many_numbers_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = render(grid("", ["name", "about"], [["a-name-that-stays-whole", "word " * 40]], left=(0, 1)), "terminal")
    many = render(grid("", ["first", *(f"attack-{n}" for n in range(20))], [["a", *["1,000"] * 20]]), "terminal")
    for text in (words, many):
        assert max(map(len, text.splitlines())) <= 80
    assert "a-name-that-stays-whole  word" in words
    assert words.split().count("word") == 40
    assert many.count("1,000") == 20
    assert many.count("first") == 3


def test_verdicts_have_colours_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TableRow("net", None, "—", LINF, Cell(0.9), Cell(0.5), verdict="sound")
    table = Table("t", "", (row, replace(row, model="other", verdict="suspicious")))
    plain = render(table, "terminal")
    assert "\x1b" not in plain
    monkeypatch.setattr("robustframe.terminal.is_terminal", lambda stream: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = render(table, "terminal")
    assert "\x1b[32msound\x1b[0m" in coloured
    assert "\x1b[31msuspicious\x1b[0m" in coloured
    assert re.sub("\x1b\\[\\d+m", "", coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert render(table, "terminal") == plain


def test_wide_characters_do_not_break_the_columns() -> None:
    rows = tuple(TableRow(name, None, "—", "linf:1", Cell(0.5), Cell(0.25)) for name in ("四角", "abcd", "e\u0301efg"))
    lines = render(Table("", "", rows), "terminal").splitlines()[3:6]
    assert [line[line.index("linf") :] for line in lines] == [lines[1][lines[1].index("linf") :]] * 3
    assert [line.index("linf") for line in lines] == [5, 7, 8]


HOSTILE = [
    "a|b",
    "back\\slash\\",
    "two\nlines\r\nand \x1b[31mred\x1b[0m\u2028\u202e",
    "<script>alert(1)</script>",
    "&amp; % $x$ # _ { } ~ ^",
    "[1in] *",
    "* item",
    "`code` [link](javascript:x) ![i](y)",
    'quote " and, comma',
    "\\\\ \\end{table} \\input{x}",
    "",
]


def _hostile(name: str) -> Table:
    row = TableRow(name, None, "—", name, Cell(0.5), Cell(0.25), note=name)
    return Table(name, name, (row, *_pair("calm" + name)))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_inside_its_markdown_cell(name: str) -> None:
    text = render(_hostile(name), "md")
    assert "<" not in text.replace("p < 0.001", "")
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    for row in rows:
        # Backslash pairs are one character each; what is left of a pipe then is a border.
        assert len(re.findall(r"\|", re.sub(r"\\.", "", row))) == 7
    assert not re.search(r"(?<!\\)(`|\[(?![-+]?\d+\.\d, ))", text)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_inside_its_latex_cell(name: str) -> None:
    text = render(_hostile(name), "tex")
    assert set(re.findall(r"\\(end|begin|input)\b", text)) <= {"end", "begin"}
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    bare = re.sub(r"\\[\\&%$#_{}]", "", text.replace("{!}{%\n", "{!}{\n").removeprefix("% "))
    assert not set("#_^~%") & set(re.sub(r"\$\^\{\d\}\$|@\{~\}|\$\\ell_\\infty ", "", bare))
    assert bare.count("{") == bare.count("}")
    body = text.split("\\midrule\n", 1)[1].split("\\bottomrule")[0].replace("\\midrule\n", "")
    lines = [line for line in body.splitlines() if line != r"\addlinespace"]
    span = re.search(r"\\multicolumn\{(\d)\}\{@", text)
    assert span is not None
    for line in lines:
        assert line.endswith((r" \\", r" \\*"))
        assert not line.startswith(("[", "*"))
        # The names of pairs stand above their lines.
        wanted = 0 if line.startswith(r"\multicolumn") else int(span[1]) - 1
        assert len(re.findall(r"(?<!\\)&", line.replace(r"\\", ""))) == wanted


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_survives_the_csv_with_what_steers_a_terminal_spelt_out(name: str) -> None:
    first, *_ = csv.DictReader(io.StringIO(render(_hostile(name), "csv"), newline=""))
    said = "".join(c if c.isprintable() or c in "\r\n" else ascii(c)[1:-1] for c in name)
    assert (first["model"], first["threat"], first["note"]) == (said, said, said)
    assert None not in first


@pytest.mark.parametrize("name", ["=1+1", "+1-1", "-cmd|' /C calc'!A0", "@SUM(A1)", " =1", "\t=1"])
def test_no_name_is_a_formula_to_a_spreadsheet(name: str) -> None:
    first, *others = csv.DictReader(io.StringIO(render(_hostile(name), "csv"), newline=""))
    assert (first["model"], first["threat"], first["note"]) == (f"'{name}",) * 3
    calm = list(csv.DictReader(io.StringIO(render(_hostile("a"), "csv"), newline="")))[1:]
    assert [row["robust"] for row in others] == [row["robust"] for row in calm]


def test_numbers_are_no_formulas() -> None:
    texts = ["-1", "+0.5", "-1e-05", "-x", "plain"]
    rendered = render(grid("", ["value"], [[text] for text in texts]), "csv")
    assert rendered.splitlines()[1:] == ["-1", "+0.5", "-1e-05", "'-x", "plain"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_printable_line_in_the_terminal(name: str) -> None:
    text = render(_hostile(name), "terminal")
    assert all(character.isprintable() or character == "\n" for character in text)


def test_an_unknown_format_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown table format 'latex'.*known: csv, html, md, terminal, tex"):
        render(TABLE, "latex")
    assert sorted(FORMATS) == ["csv", "html", "md", "terminal", "tex"]


def test_what_cannot_be_a_table_is_refused_in_words() -> None:
    half, nan = Cell(0.5), float("nan")
    with pytest.raises(InputError, match=r"91\.3 is not a fraction in \[-1, 1\]; divide percent by 100"):
        Cell(91.3)
    with pytest.raises(InputError, match="nan is not a fraction"):
        Cell(nan)
    with pytest.raises(InputError, match="has one end; give both or none"):
        Cell(0.5, 0.4)
    with pytest.raises(InputError, match="ends before it begins"):
        Cell(0.5, 0.6, 0.4)
    with pytest.raises(InputError, match="unknown twin 'recurent'; did you mean 'recurrent'"):
        TableRow("m", None, "recurent", LINF, half, half)
    with pytest.raises(InputError, match=r"p = 1\.5 is not a probability"):
        TableRow("m", None, "difference", LINF, half, half, p_clean=1.5)
    with pytest.raises(InputError, match="coherence nan is not a number of at least 0"):
        TableRow("m", nan, "—", LINF, half, half)
    with pytest.raises(InputError, match="m has an accuracy below 0; only a difference may be negative"):
        TableRow("m", None, "recurrent", LINF, Cell(-0.1), half)
    with pytest.raises(InputError, match="the table 't' has no rows"):
        Table("t", "", ())
    with pytest.raises(InputError, match=r"model 'm' has two coherences, 0\.1 and 0\.2"):
        Table("t", "", (*_pair("m", 0.1), *_pair("m", 0.2)))


def test_a_verdict_gets_a_column_where_anybody_asked_for_one() -> None:
    asked = TableRow("net", None, "—", LINF, Cell(0.9), Cell(0.5), note="randomised: 3 of 16", verdict="suspicious")
    table = Table("t", "", (asked, PLAIN_ROW))
    assert "| Robust accuracy (%) | Verdict |" in render(table, "md")
    assert "| 50.0 | suspicious |" in render(table, "md")
    assert r"& 50.0 &  & suspicious \\" in render(table, "tex")
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"), newline="")))
    assert [row["verdict"] for row in rows] == ["suspicious", ""]
    lines = render(table, "terminal").splitlines()
    assert lines[2].endswith("  Verdict")
    assert lines[4].split()[-2:] == ["50.0", "suspicious"]
    assert all("erdict" not in render(TABLE, format) for format in FORMATS)


WIDE = "四角 é ø ε 😀"
TWO = Table(
    "Two",
    "",
    (
        *_pair("b", 0.2),
        *_pair("A", 0.9),
        *_pair("A", 0.9, "l2:1"),
        TableRow("c", None, "—", LINF, Cell(0.99), Cell(0.9), verdict="sound"),
    ),
)


def _read(style: TableStyle) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(TWO, "csv", style), newline="")))


def _models(style: TableStyle) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in _read(style)))


@pytest.mark.parametrize(
    ("sort", "models"),
    [
        ("", ["b", "A", "c"]),
        ("name", ["A", "b", "c"]),
        ("-name", ["c", "b", "A"]),
        ("coherence", ["b", "A", "c"]),
        ("-coherence", ["A", "b", "c"]),
        ("-clean", ["c", "b", "A"]),
        ("robust", ["b", "A", "c"]),
        ("-robust", ["c", "b", "A"]),
    ],
)
def test_models_are_sorted_as_asked_and_the_unknown_stand_last(sort: str, models: list[str]) -> None:
    assert _models(TableStyle(sort=sort)) == models
    assert _models(TableStyle(sort=sort, pairs=True)) == models


def test_columns_are_those_chosen_and_what_a_row_is_stays() -> None:
    text = render(TWO, "md", TableStyle(columns=("robust",)))
    assert "| Model | Twin | Threat | Robust accuracy (%) |" in text
    assert "91.3" not in text
    assert "0.900" not in text
    assert (
        render(TWO, "csv", TableStyle(columns=("verdict",))).splitlines()[0]
        == "model,coherence,twin,threat,note,verdict"
    )
    assert "Certified (%)" in render(TWO, "md", TableStyle(columns=("certified", "clean")))


def test_rows_are_grouped_by_threat_or_twin() -> None:
    by_threat = [
        row["threat"] for row in csv.DictReader(io.StringIO(render(TWO, "csv", TableStyle(group_by="threat"))))
    ]
    assert by_threat == [LINF] * 7 + ["l2:1"] * 3
    by_twin = [row["twin"] for row in _read(TableStyle(group_by="twin"))]
    assert by_twin == ["feed-forward"] * 3 + ["recurrent"] * 3 + ["difference"] * 3 + [""]
    lines = render(TWO, "terminal", TableStyle(group_by="threat")).splitlines()
    assert lines[2].startswith("Threat, model")
    assert lines[4] == LINF
    assert lines[5].split()[:3] == ["b", "0.200", "feed-forward"]
    assert render(TWO, "md", TableStyle(group_by="threat")).count(LINF) == 1


def test_a_pair_is_one_line_with_its_difference() -> None:
    style = TableStyle(pairs=True, columns=("robust",))
    first, *_ = _read(style)
    assert (first["robust_feedforward"], first["robust_recurrent"], first["robust_difference"]) == (
        "0.041",
        "0.5",
        "0.459",
    )
    assert first["p_robust_difference"] == "1e-09"
    assert "p_robust_recurrent" not in first
    lines = [line for line in render(TWO, "md", style).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert lines[2] == "| b | linf:8/255 | 4.1 [3.0, 5.5] | 50.0 [46.0, 54.0] | +45.9 [+42.0, +50.0], p < 0.001 | – |"
    # A classifier without a twin keeps its own column, and is not called one.
    assert lines[-1] == "| c | linf:8/255 | – | – | – | 90.0 |"
    for format in FORMATS:
        assert render(TWO, format, style)


def test_verdicts_of_a_pair_are_one_or_each_named() -> None:
    rows = [
        TableRow("m", None, twin, LINF, Cell(0.5), Cell(0.5), verdict="sound") for twin in ("feed-forward", "recurrent")
    ]
    assert "| sound |" in render(Table("t", "", tuple(rows)), "md", TableStyle(pairs=True))
    rows[1] = TableRow("m", None, "recurrent", LINF, Cell(0.5), Cell(0.5), note="why", verdict="suspicious")
    text = render(Table("t", "", tuple(rows)), "md", TableStyle(pairs=True))
    assert "| feed-forward sound; recurrent suspicious |" in text
    assert "linf:8/255¹" in text


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"columns": ("robst",)}, "unknown column 'robst'; did you mean 'robust'"),
        ({"columns": ("",)}, "unknown column ''"),
        ({"group_by": "modle"}, "unknown group 'modle'; did you mean 'model'"),
        ({"sort": "-robst"}, "unknown order '-robst'; did you mean '-robust'"),
        ({"sort": "-"}, "unknown order '-'"),
        ({"pairs": True, "group_by": "twin"}, "cannot be grouped by twin"),
    ],
)
def test_a_style_that_cannot_be_is_refused_in_words(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TableStyle(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*HOSTILE, WIDE])
def test_a_hostile_name_is_text_in_html(name: str) -> None:
    page = render(_hostile(name), "html")
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("<table") == 1
    assert page == render(_hostile(name), "html")
    assert '<meta charset="utf-8"' in page


def test_numbers_and_intervals_stand_in_html() -> None:
    page = render(TABLE, "html")
    assert page.count('<th scope="rowgroup" colspan="4">') == 1
    assert page.count('<th scope="row">') == 4
    assert page.count('<th scope="col">') == 4
    assert "<caption>Pairs</caption>" in page
    for text in ("91.3 [89.4, 92.9]", "+45.9 [+42.0, +50.0], p &lt; 0.001", "chain   coherence 0.123", "¹ robust"):
        assert text in page


def test_latex_names_what_no_font_has() -> None:
    text = render(Table(WIDE, "", (PLAIN_ROW,)), "tex")
    assert r"(U+56DB)(U+89D2) \'{e} (U+00F8) (U+03B5) (U+1F600)" in text


def test_threats_are_mathematics_and_labels_are_short() -> None:
    table = Table("default: digits test, 40 examples, l2:0.5", "Under linf:1e-3, and linf.", (PLAIN_ROW,))
    text = render(table, "tex")
    assert r"\textbf{default: digits test, 40 examples, $\ell_2 \leq 0.5$.}" in text
    assert r"Under $\ell_\infty \leq 1e-3$, and linf." in text
    assert r"\label{tab:default}" in text


LATEX_ENGINE = shutil.which("tectonic") or shutil.which("pdflatex")
needs_latex = pytest.mark.skipif(LATEX_ENGINE is None, reason="needs tectonic or pdflatex with booktabs and siunitx")


def compiled(folder: Path, bodies: list[str], *, before: str = "") -> str:
    """What the engine says of tables on pages of their own."""
    document = [r"\documentclass{article}", bodies[0].splitlines()[0].removeprefix("% "), before, r"\begin{document}"]
    text = "\n\n".join([*document, "\n\\clearpage\n".join(bodies), r"\end{document}"])
    (folder / "all.tex").write_text(text)
    options = [] if "tectonic" in str(LATEX_ENGINE) else ["-interaction=batchmode", "-halt-on-error"]
    words = [str(LATEX_ENGINE), *options, *["--keep-logs"] * (not options), "all.tex"]
    # Tables over pages know their columns the second time.
    for _ in range(2):
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        log = (folder / "all.log").read_text(errors="replace")
        assert done.returncode == 0, done.stdout + log[-2000:]
    assert (folder / "all.pdf").stat().st_size > 10_000
    return log


@needs_latex
def test_the_latex_compiles_as_it_is(tmp_path: Path) -> None:
    styles = (
        TableStyle(),
        TableStyle(pairs=True),
        TableStyle(group_by="threat", columns=("robust", "verdict"), sort="-robust"),
    )
    bodies = [render(TWO, "tex", style) for style in styles]
    bodies += [render(_hostile(name), "tex") for name in (*HOSTILE, WIDE)]
    assert "Overfull" not in compiled(tmp_path, bodies)


def _many(pairs: int, *threats: str) -> Table:
    rows = [
        replace(row, certified=None if row.twin == "difference" else 0.1, verdict=verdict)
        for number in range(pairs)
        for threat in threats
        for row, verdict in zip(_pair(f"fmnist-chain3-128-joint-{number}", threat=threat), ("sound", "sound", ""))
    ]
    title = f"default: fashion-mnist test, 1,000 examples, {', '.join(threats)}"
    return Table(title, "Clean and robust accuracy in % with 95 % intervals. " * 6, tuple(rows))


@needs_latex
def test_2_34_and_54_pairs_fit_their_pages(tmp_path: Path) -> None:
    styles = TableStyle(), TableStyle(pairs=True), TableStyle(group_by="threat")
    bodies = [
        render(_many(pairs, *threats), "tex", style)
        for pairs in (2, 34, 54)
        for threats in ((LINF,), (LINF, "l2:0.5"))
        for style in styles
    ]
    assert ["longtable}{" in body for body in bodies] == [False] * 6 + [True] * 12
    # Each name is a heading of its own, so that none is lost.
    assert bodies[12].count(r"fmnist-chain3-128-joint-53\quad coherence 0.123") == 1
    assert "Overfull" not in compiled(tmp_path, bodies)


@needs_latex
def test_two_pairs_stand_at_the_size_of_the_text(tmp_path: Path) -> None:
    measured = r"\let\fit\resizebox\renewcommand{\resizebox}[3]{\sbox0{#3}\typeout{WIDE \the\wd0,\the\linewidth}"
    measured += r"\fit{#1}{#2}{#3}}"
    log = compiled(tmp_path, [render(_many(2, LINF), "tex"), render(_many(2, LINF, "l2:0.5"), "tex")], before=measured)
    found = re.findall(r"WIDE ([\d.]+)pt,([\d.]+)pt", log)
    assert len(found) == 2
    assert all(float(wide) <= float(text) for wide, text in found)
