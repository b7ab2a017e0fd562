"""Draws the pictures of these pages from frames, pairs and published records: `make pictures` writes docs/pictures/."""

import html
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from robustframe.data import load as load_data
from robustframe.frames import Frame, objective
from robustframe.frames.build import build_frame
from robustframe.report.figures import gram_figure, rank_figure, write
from robustframe.report.rank import rank_architectures
from robustframe.runs import open_run
from robustframe.solvers import DeepPursuit, iterate
from robustframe.statistics import Proportion
from robustframe.zoo import load

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "evaluations" / "default" / "results"
PAIR, ROBUST = "fmnist-chain3", "fmnist-chain3-linf"
RANKED = (
    "resnet20", "resnet32", "resnet56", "densenet40-12", "fc-200-100", "torchvision:vgg11", "torchvision:resnet18",
)  # fmt: skip
INK, FAINT, BLUE, ORANGE, PALE = "#222222", "#767676", "#2a5a9c", "#b3541e", "#dfe7f2"


class Picture:
    """An SVG on white, so that it reads on light and dark pages."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
            f'font-family="sans-serif" font-size="14" fill="{INK}"><title>{html.escape(title)}</title>',
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="{FAINT}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="6" fill="white"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" fill="{fill}" '
            f'stroke="{stroke}"/>'
        )

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", fill: str = INK, size: int = 14) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}">'
            f"{html.escape(text)}</text>"
        )

    def line(
        self, points: Iterable[tuple[float, float]], *, stroke: str = FAINT, width: float = 1, tip: bool = False
    ) -> None:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        arrow = ' marker-end="url(#tip)"' if tip else ""
        self.parts.append(f'<path d="M{path}" fill="none" stroke="{stroke}" stroke-width="{width}"{arrow}/>')

    def __str__(self) -> str:
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def draw_pair() -> Picture:
    """One pair as its two classifiers: sweeps from the top down, layers from left to right."""
    pair, card = load(PAIR)
    shapes = [pair.frame.in_shape, *pair.frame.code_shapes]
    picture = Picture(760, 90 + 70 * pair.sweeps, "The sweeps of a pair")
    at = [30 + 150 * j for j in range(len(shapes))]
    for j, shape in enumerate(shapes):
        name = "image x" if j == 0 else f"code w{j}"
        picture.text(at[j] + 45, 26, name, anchor="middle")
        picture.text(at[j] + 45, 44, " x ".join(map(str, shape)), anchor="middle", fill=FAINT, size=12)
    for sweep in range(pair.sweeps):
        y = 62 + 70 * sweep
        last = sweep in (0, pair.sweeps - 1)
        for j in range(len(shapes)):
            picture.box(at[j], y, 90, 34, BLUE if sweep == 0 and j else PALE)
            label = "x" if j == 0 else f"w{j}"
            picture.text(at[j] + 45, y + 22, label, anchor="middle", fill="white" if sweep == 0 and j else INK)
            if j:
                picture.line([(at[j - 1] + 92, y + 17), (at[j] - 3, y + 17)], tip=True)
            # From the second sweep on, a layer also hears from its own last code and from the layer above.
            if sweep and j:
                picture.line([(at[j] + 45, y - 34), (at[j] + 45, y - 3)], tip=True)
                if j + 1 < len(shapes):
                    picture.line([(at[j + 1] + 20, y - 34), (at[j] + 80, y - 3)], tip=True)
        if last:
            picture.line([(at[-1] + 92, y + 17), (at[-1] + 118, y + 17)], tip=True)
            twin = "feed-forward" if sweep == 0 else "recurrent"
            picture.text(at[-1] + 122, y + 15, twin)
            picture.text(at[-1] + 122, y + 31, "logits", fill=FAINT, size=12)
        picture.text(at[0] - 8, y + 52, f"sweep {sweep + 1}", fill=FAINT, size=12)
    picture.text(30, 62 + 70 * pair.sweeps + 14, f"{card.name}: one frame, one head, {card.sweeps} sweeps", fill=FAINT)
    return picture


def draw_structures() -> Picture:
    """The block rows of three frames: B_j on the diagonal, below it minus what each row reads."""
    convolution = {"filters": 4, "kernel": 3, "padding": 1}
    picture = Picture(760, 310, "Block rows of a chain, a residual and a dense frame")
    for number, structure in enumerate(("chain", "residual", "dense")):
        frame = build_frame((4, 6, 6), [convolution] * 4, structure)
        left, top, cell = 30 + 245 * number, 60, 50
        picture.text(left, 28, structure, size=16)
        for j in range(1, 5):
            picture.text(left + cell * (j - 0.5), 50, f"w{j}", anchor="middle", fill=FAINT, size=12)
        for j in range(1, len(frame.rows) + 1):
            _block_row(picture, frame, j, left, top + cell * (j - 1), cell)
    picture.text(
        30, 294, "B: filters of a layer.  -I: what the row reads.  -S and +I: a skip.  Grey: zero.", fill=FAINT
    )
    return picture


def _block_row(picture: Picture, frame: Frame, j: int, left: float, top: float, cell: int) -> None:
    row = frame.rows[j - 1]
    for k in range(1, 5):
        marks = []
        if k == j:
            marks.append(f"B{j}" if row.skip is None else f"B{j}+I")
        if k in row.sources:
            marks.append("-I")
        if row.skip == k:
            marks.append("-S")
        fill = BLUE if k == j else ORANGE if marks else "#eeeeee"
        picture.box(left + cell * (k - 1) + 1, top + 1, cell - 2, cell - 2, fill)
        if marks:
            text = "".join(marks)
            picture.text(left + cell * (k - 0.5), top + 30, text, anchor="middle", fill="white", size=13)


def draw_sweeps() -> Picture:
    """What sweeps do: the objective falls, and the two trained numbers of sweeps classify."""
    data = load_data("fashion-mnist").first(500)
    picture = Picture(760, 300, "Objective and accuracy over sweeps")
    panels: list[tuple[str, Callable[[float], str], list[list[float]]]] = [
        ("objective, mean of 500 images", lambda value: f"{value:.0f}", []),
        ("clean accuracy, % of 500 images", lambda value: f"{value:.0f}", []),
    ]
    for name in (PAIR, ROBUST):
        pair, _ = load(name)
        energy, accuracy = [], []
        with torch.no_grad():
            for codes in iterate(DeepPursuit(sweeps=10), pair.frame, data.images):
                energy.append(float(objective(pair.frame, data.images, codes).mean()))
                right = pair.classify(codes[-1]).argmax(1) == data.labels
                accuracy.append(100 * float(right.double().mean()))
        panels[0][2].append(energy)
        panels[1][2].append(accuracy)
    for number, (title, label, curves) in enumerate(panels):
        _panel(picture, 60 + 365 * number, title, label, curves)
    for number, (name, colour) in enumerate(((PAIR, BLUE), (ROBUST, ORANGE))):
        picture.line([(60 + 200 * number, 284), (84 + 200 * number, 284)], stroke=colour, width=3)
        picture.text(90 + 200 * number, 289, name)
    return picture


def _panel(picture: Picture, left: float, title: str, label: Callable[[float], str], curves: list[list[float]]) -> None:
    width, top, height = 280, 50, 170
    low, high = min(map(min, curves)), max(map(max, curves))
    picture.text(left, 28, title)
    for value in (low, (low + high) / 2, high):
        y = top + height * (1 - (value - low) / (high - low))
        picture.line([(left, y), (left + width, y)], stroke="#dddddd")
        picture.text(left - 6, y + 5, label(value), anchor="end", fill=FAINT, size=12)
    for sweep in range(len(curves[0])):
        x = left + width * sweep / (len(curves[0]) - 1)
        picture.text(x, top + height + 20, str(sweep + 1), anchor="middle", fill=FAINT, size=12)
    picture.text(left + width / 2, top + height + 38, "sweeps", anchor="middle", fill=FAINT, size=12)
    for curve, colour in zip(curves, (BLUE, ORANGE)):
        points = [
            (left + width * sweep / (len(curve) - 1), top + height * (1 - (value - low) / (high - low)))
            for sweep, value in enumerate(curve)
        ]
        picture.line(points, stroke=colour, width=2.5)


def draw_number() -> Picture:
    """The published default evaluation, row by row: what attacks broke, what is proven, what nobody knows."""
    rows = open_run(RESULTS).results
    picture = Picture(760, 92 + 58 * len(rows), "What a robustness number says")
    left, width = 240, 480
    for share in (0, 25, 50, 75, 100):
        x = left + width * share / 100
        picture.line([(x, 34), (x, 40 + 58 * len(rows))], stroke="#dddddd")
        picture.text(x, 26, f"{share} %", anchor="middle", fill=FAINT, size=12)
    for number, result in enumerate(rows):
        y = 46 + 58 * number
        scale = width / result.examples
        robust, clean = scale * result.robust_correct, scale * result.clean_correct
        certified = scale * (result.certified_correct or 0)
        model, _, twin = result.classifier.partition("/")
        picture.text(left - 12, y + 15, model, anchor="end")
        picture.text(left - 12, y + 32, f"{twin}, {result.threat}", anchor="end", fill=FAINT, size=12)
        picture.box(left, y, width, 32, "#eeeeee")
        picture.box(left, y, clean, 32, "#f3d9c9")
        picture.box(left, y, robust, 32, PALE)
        picture.box(left, y, certified, 32, BLUE)
        interval = Proportion(result.robust_correct, result.examples).interval()
        x0, x1 = left + width * interval.low, left + width * interval.high
        picture.line([(x0, y + 16), (x1, y + 16)], stroke=INK, width=2)
        for x in (x0, x1):
            picture.line([(x, y + 10), (x, y + 22)], stroke=INK, width=2)
    y = 64 + 58 * len(rows)
    legend = {"wrong anyway": "#eeeeee", "broken": "#f3d9c9", "not broken by these attacks": PALE, "proven": BLUE}
    x = 24.0
    for text, colour in legend.items():
        picture.box(x, y, 14, 14, colour, FAINT)
        picture.text(x + 20, y + 12, text, size=13)
        x += 48 + 7.2 * len(text)
    picture.line([(x, y + 7), (x + 22, y + 7)], stroke=INK, width=2)
    picture.text(x + 28, y + 12, "95 % interval", size=13)
    return picture


def draw_survivors() -> Picture:
    """Who was left after each attack of the published default evaluation."""
    run = open_run(RESULTS)
    chosen = next(result for result in run.results if result.classifier == f"{ROBUST}/recurrent")
    steps = [("clean images", chosen.examples), ("classified correctly", chosen.clean_correct)]
    steps += [(f"left by {entry.name or entry.use}", entry.entered - entry.broken) for entry in chosen.attacks]
    picture = Picture(760, 60 + 30 * len(steps), "Survivors of each attack")
    batteries = " then ".join(battery.cited for battery in run.batteries)
    picture.text(24, 26, f"{chosen.classifier}, {chosen.threat}: {batteries}")
    for number, (text, count) in enumerate(steps):
        y = 42 + 30 * number
        picture.text(270, y + 17, text, anchor="end", size=13)
        picture.box(282, y, 420 * count / chosen.examples, 22, BLUE if number == len(steps) - 1 else PALE)
        picture.text(290 + 420 * count / chosen.examples, y + 17, f"{count:,}", size=13)
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "pair": draw_pair,
    "structures": draw_structures,
    "sweeps": draw_sweeps,
    "number": draw_number,
    "survivors": draw_survivors,
}


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(str(draw()), encoding="utf-8")
    write(rank_figure(rank_architectures(RANKED, shape=(3, 32, 32))), folder / "rank.svg")
    write(gram_figure(load(ROBUST)[0].frames[0], title=f"|Gram| of {ROBUST}"), folder / "gram.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
