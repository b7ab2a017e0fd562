"""What all figures share: colours, themes, fonts, and the way from a chart to a file."""

import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustframe.errors import InputError, StoppedEarly, unknown
from robustframe.report.layout import one_line
from robustframe.report.look import THEMES, TWIN_DASHES, TWIN_SHAPES, TWINS, Theme
from robustframe.runs.record import write_aside

MISSING = "figures need the extra `report`: pip install 'robustframe[report]'"

try:
    import altair as alt
    import vl_convert
except ImportError as error:
    raise InputError(MISSING) from error

Figure = alt.LayerChart | alt.FacetChart | alt.VConcatChart
TWIN_COLOURS = THEMES["light"].twins
ROOM = 860.0
"""Pixels that a figure is laid out in where nothing else is asked for, with labels of 11 pixels."""
_LABEL = 11
_PANEL, _WIDEST, _AXIS, _GAP, _MOST_COLUMNS = 150.0, 480.0, 60.0, 27.0, 6
"""Pixels of a panel at least and at most, of its axis, and between two."""
_POINTS_PER_MM = 72 / 25.4
_COLUMNS = {"1col": 84.0, "2col": 174.0}
"""Widths in mm of one and two columns of a journal."""
# The converter brings Liberation Sans along, as wide as Arial and Helvetica: layout is the same anywhere.
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_SUFFIXES = (".svg", ".pdf", ".png")
_PIXELS_PER_INCH = 192
# The converter lists the resources of a page in an order of chance; sorted in place, no offset in the file changes.
_RESOURCES = re.compile(rb"(?<=<<\n)(?: +/[a-z]+\d+ \d+ 0 R\n)+(?= +>>)")


@dataclass(frozen=True)
class Paper:
    """The size of a figure in print."""

    width: float = _COLUMNS["2col"]
    """In mm."""
    font: float = 8.0
    """Of labels, in points."""
    dpi: int = 300
    """Of a PNG."""

    def __post_init__(self) -> None:
        if not 40 <= self.width <= 400 or not 4 <= self.font <= 24 or not 36 <= self.dpi <= 1200:
            given = f"{self.width:g} mm, {self.font:g} pt, {self.dpi} dpi"
            raise InputError(f"a figure of {given} is none; ask for 40 to 400 mm, 4 to 24 pt and 36 to 1200 dpi")

    @classmethod
    def of(cls, width: str, font: float = 8.0, dpi: int = 300) -> "Paper":
        """Read a width such as ``"1col"``, ``"2col"`` or ``"120mm"``.

        Raises:
            InputError: for anything else, or a size that no page has.
        """
        number = width.removesuffix("mm")
        if width in _COLUMNS:
            return cls(_COLUMNS[width], font, dpi)
        try:
            return cls(float(number), font, dpi)
        except ValueError:
            raise InputError(f"a width is 1col, 2col or a number of mm such as 120mm, not {width!r}") from None

    @property
    def room(self) -> float:
        """Pixels to lay the figure out in, so that its labels come out at the size asked for."""
        return self.width * _POINTS_PER_MM * _LABEL / self.font


def twin_name(twin: str | None) -> str:
    """Return what figures call a twin of a record."""
    return {"feedforward": TWINS[0], "recurrent": TWINS[1], None: TWINS[2]}[twin]


def legend_of_marks() -> alt.Legend:
    """Return a legend of full marks, whatever the marks of a figure look like."""
    return alt.Legend(title=None, symbolOpacity=1, symbolSize=90, symbolStrokeWidth=0)


def twin_channels(present: Iterable[str]) -> dict[str, Any]:
    """Return colour, shape and dash channels, so that a twin looks the same in every figure.

    Args:
        present: the twins of the figure; its data has them as ``twin``, and again as ``dash``, since channels of one
            field share a legend and a mark with a dashed edge is hard to read.
    """
    known = set(present)
    shown = [twin for twin in TWINS if twin in known]
    at = [TWINS.index(twin) for twin in shown]
    # A figure of classifiers without twins has nothing to tell apart.
    legend = None if shown == ["single"] else legend_of_marks()
    kinds: dict[str, tuple[Any, str, Sequence[Any], Any]] = {
        "color": (alt.Color, "twin:N", TWIN_COLOURS, legend),
        "shape": (alt.Shape, "twin:N", TWIN_SHAPES, legend),
        "strokeDash": (alt.StrokeDash, "dash:N", TWIN_DASHES, None),
    }
    return {
        name: channel(field, scale=alt.Scale(domain=shown, range=[looks[i] for i in at]), legend=own)
        for name, (channel, field, looks, own) in kinds.items()
    }


def panels(room: float, count: int) -> tuple[int, float]:
    """Return how many panels stand beside each other in some pixels, and the width of each."""
    columns = max(1, min(count, int(room // _PANEL), _MOST_COLUMNS))
    return columns, min(_WIDEST, (room - _AXIS) / columns - _GAP)


def values(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """Wrap rows as the data of a chart."""
    return alt.InlineData(values=[dict(row) for row in rows])


def titled(title: str, *notes: str) -> alt.TitleParams:
    """Return the title of a figure with notes below it, a line each."""
    return alt.TitleParams(one_line(title), subtitle=[one_line(note) for note in notes if note])


def headed(title: str, *notes: str) -> alt.TitleParams:
    """Return the smaller title of a part."""
    return alt.TitleParams(
        one_line(title), subtitle=[one_line(note) for note in notes if note], fontSize=12, subtitlePadding=3, offset=8
    )


def svg(chart: Figure, theme: str = "light") -> str:
    """Draw a chart as SVG; the same chart gives the same bytes.

    Args:
        chart: what a function of this package returned.
        theme: ``"light"`` for paper, ``"dark"`` for a dark page.

    Returns:
        One ``<svg>`` element that needs nothing else; its ids are its own, so that several can stand in one page.

    Raises:
        InputError: for an unknown theme.
    """
    drawn = vl_convert.vegalite_to_svg(_spec(chart, theme))
    # The converter counts its ids over the life of the process.
    ids = list(dict.fromkeys(re.findall(r'\bid="([^"]+)"', drawn)))
    for number, given in enumerate(ids):
        drawn = drawn.replace(f'id="{given}"', f'id="ID-{number}"').replace(f"url(#{given})", f"url(#ID-{number})")
    own = hashlib.sha256(drawn.encode()).hexdigest()[:8]
    drawn = re.sub(r'(\bid="|url\(#)ID-', rf"\g<1>f{own}-", drawn)
    described = html.escape(_described(chart), quote=True)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{described}" ', 1)


def write(chart: Figure, path: Path, theme: str = "light", paper: Paper | None = None) -> None:
    """Write a chart into a file, whole or not at all.

    Args:
        chart: what a function of this package returned.
        path: ends in ``.svg``, ``.pdf`` or ``.png``.
        theme: as for `svg`.
        paper: the size in print; such a figure has no title and no notes, which a page sets below it as its `caption`.
            Draw it in the `Paper.room` of the same paper.

    Raises:
        InputError: for another ending, an unknown theme, or a place that cannot be written.
    """
    check_path(path)
    spec = _spec(chart, theme)
    drawn = svg(chart, theme)
    scale, ppi = 1.0, _PIXELS_PER_INCH
    if paper is not None:
        spec = _spec(_bare(chart), theme)
        drawn = svg(_bare(chart), theme)
        # A PDF has 72 pixels to an inch.
        scale, ppi = paper.width * _POINTS_PER_MM / _width(drawn), paper.dpi
    match path.suffix.lower():
        case ".svg":
            content = (drawn if paper is None else _sized(drawn, paper)).encode()
        case ".pdf":
            content = _RESOURCES.sub(_in_order, vl_convert.vegalite_to_pdf(spec, scale=scale))
        case _:
            content = vl_convert.vegalite_to_png(spec, ppi=ppi, scale=scale)
    try:
        write_aside(path, content)
    except StoppedEarly as error:
        raise InputError(str(error)) from error


def caption(chart: Figure) -> str:
    """Say in sentences what a chart shows: its title, its notes, and those of its parts."""
    said = list(dict.fromkeys(_titles(chart.to_dict())))
    return " ".join(each if each.endswith(".") else f"{each}." for each in said)


def _titles(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        title = part.get("title")
        if isinstance(title, dict) and "text" in title:
            notes = "; ".join(title.get("subtitle", []))
            yield ": ".join(each for each in (title["text"], notes) if each)
        for name in ("vconcat", "hconcat", "spec"):
            yield from _titles(part.get(name))
    elif isinstance(part, list):
        for each in part:
            yield from _titles(each)


def _bare(chart: Figure) -> Figure:
    """Leave out the title, and the notes of every part, which stand in the caption."""
    bare: Figure = chart.copy(deep=True)
    bare.title = alt.Undefined
    for part in getattr(bare, "vconcat", []):
        if isinstance(part.title, alt.TitleParams):
            part.title = part.title.copy()
            part.title.subtitle = alt.Undefined
    return bare


def _width(drawn: str) -> float:
    return float(re.findall(r'<svg [^>]*?\bwidth="([\d.]+)"', drawn)[0])


def _sized(drawn: str, paper: Paper) -> str:
    """State the size of an SVG in mm; its view box stays in pixels."""
    width = _width(drawn)
    height = float(re.findall(r'<svg [^>]*?\bheight="([\d.]+)"', drawn)[0])
    times = paper.width / width
    drawn = re.sub(r'(<svg [^>]*?\bwidth=")[\d.]+', rf"\g<1>{paper.width:g}mm", drawn, count=1)
    return re.sub(r'(<svg [^>]*?\bheight=")[\d.]+', rf"\g<1>{height * times:.2f}mm", drawn, count=1)


def check_path(path: Path) -> None:
    """Check, before any work, that a figure can be written there.

    Raises:
        InputError: for another ending than .svg, .pdf or .png, or a folder that is not there.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"a figure is a file that ends in {', '.join(_SUFFIXES)}, not {path.name!r}")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} of the figure is not there; make it first")


def _in_order(names: re.Match[bytes]) -> bytes:
    return b"".join(sorted(names[0].splitlines(keepends=True)))


def _described(chart: Figure) -> str:
    description = chart.to_dict().get("description")
    return one_line(description) if isinstance(description, str) else "figure"


def _spec(chart: Figure, theme: str) -> dict[str, Any]:
    if theme not in THEMES:
        raise unknown("theme", theme, THEMES)
    spec: dict[str, Any] = _printable(chart.to_dict())
    if theme != "light":
        spec = _coloured(spec, dict(zip(TWIN_COLOURS, THEMES[theme].twins)))
    spec["config"] = _config(THEMES[theme])
    return spec


def _coloured(part: Any, other: Mapping[str, str]) -> Any:
    """Put colours in the place of others."""
    if isinstance(part, dict):
        return {key: _coloured(each, other) for key, each in part.items()}
    if isinstance(part, list):
        return [_coloured(each, other) for each in part]
    return other.get(part, part) if isinstance(part, str) else part


def _printable(part: Any) -> Any:
    """Take control characters out of every text of a chart: they would end the process inside the converter."""
    if isinstance(part, dict):
        return {key: _printable(each) for key, each in part.items()}
    if isinstance(part, list):
        return [_printable(each) for each in part]
    return one_line(part) if isinstance(part, str) and not part.isprintable() else part


def _config(theme: Theme) -> dict[str, Any]:
    # One weight of one font: with two, the converter writes them into a PDF in an order of chance.
    text = {"labelColor": theme.ink, "titleColor": theme.ink, "labelFontSize": 12, "titleFontSize": 12}
    plain = {"titleFontWeight": "normal"}
    return {
        "background": theme.background,
        "font": _FONT,
        "padding": 10,
        "aria": False,
        "view": {"stroke": None},
        "title": {
            "color": theme.ink, "fontSize": 16, "fontWeight": "normal", "anchor": "start", "offset": 12,
            "subtitleColor": theme.faint, "subtitleFontSize": 11, "subtitlePadding": 5,
        },
        "axis": {
            **text, **plain, "labelColor": theme.faint, "labelFontSize": 11, "labelLimit": 240, "labelFlush": False,
            "domainColor": theme.faint, "tickColor": theme.faint, "gridColor": theme.grid, "titlePadding": 8,
        },
        "legend": {**text, **plain, "orient": "top", "labelLimit": 240},
        "header": {**text, "labelFontSize": 12, "labelLimit": 240, "labelAnchor": "start", "labelPadding": 6},
        "facet": {"spacing": 26},
        "text": {"color": theme.ink},
        "rule": {"color": theme.faint},
    }  # fmt: skip
