"""What all figures share: colours, themes, fonts, and the way from a chart to a file."""

import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustframe.errors import InputError, StoppedEarly, unknown
from robustframe.report.layout import one_line
from robustframe.runs.record import write_aside

MISSING = "figures need the extra `report`: pip install 'robustframe[report]'"

try:
    import altair as alt
    import vl_convert
except ImportError as error:
    raise InputError(MISSING) from error

Figure = alt.LayerChart | alt.FacetChart | alt.VConcatChart
TWINS = ("feed-forward", "recurrent", "single")
"""Every classifier is one of these; "single" has no twin."""
# Okabe and Ito's (2008), which colour-blind readers tell apart; each stands out from white and from the dark ground.
TWIN_COLOURS = ("#d55e00", "#0f7fc0", "#009e73")
TWIN_DASHES = ([5, 2], [1, 0], [2, 2])
TWIN_SHAPES = ("square", "circle", "triangle-up")
# The converter brings Liberation Sans along, as wide as Arial and Helvetica: layout is the same anywhere.
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_SUFFIXES = (".svg", ".pdf", ".png")
_PIXELS_PER_INCH = 192
# The converter lists the resources of a page in an order of chance; sorted in place, no offset in the file changes.
_RESOURCES = re.compile(rb"(?<=<<\n)(?: +/[a-z]+\d+ \d+ 0 R\n)+(?= +>>)")


@dataclass(frozen=True)
class Theme:
    """The colours of a ground."""

    background: str
    ink: str
    faint: str
    """Of axes and notes."""
    grid: str


THEMES: Mapping[str, Theme] = {
    "light": Theme(background="#ffffff", ink="#1b1f24", faint="#59636e", grid="#e3e6ea"),
    "dark": Theme(background="#14171c", ink="#e8eaed", faint="#9aa4af", grid="#2b3138"),
}


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
    shown = [twin for twin in TWINS if twin in set(present)]
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


def write(chart: Figure, path: Path, theme: str = "light") -> None:
    """Write a chart into a file, whole or not at all.

    Args:
        chart: what a function of this package returned.
        path: ends in ``.svg``, ``.pdf`` or ``.png``.
        theme: as for `svg`.

    Raises:
        InputError: for another ending, an unknown theme, or a place that cannot be written.
    """
    check_path(path)
    spec = _spec(chart, theme)
    match path.suffix.lower():
        case ".svg":
            content = svg(chart, theme).encode()
        case ".pdf":
            content = _RESOURCES.sub(_in_order, vl_convert.vegalite_to_pdf(spec))
        case _:
            content = vl_convert.vegalite_to_png(spec, ppi=_PIXELS_PER_INCH)
    try:
        write_aside(path, content)
    except StoppedEarly as error:
        raise InputError(str(error)) from error


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
    spec["config"] = _config(THEMES[theme])
    return spec


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
