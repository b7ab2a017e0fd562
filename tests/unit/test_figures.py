"""Figures: what they draw, that bytes repeat, what hostile names cannot do, and what is said to bad input."""

import itertools
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import pytest
import torch
from made_up import make_run
from PIL import Image
from safetensors.torch import load_file, save
from typer.testing import CliRunner

from robustframe.cli import app
from robustframe.cli.reports import KINDS
from robustframe.data import from_arrays, load
from robustframe.errors import InputError, IntegrityError
from robustframe.evaluation import evaluate, evaluate_recipe
from robustframe.frames import build_frame
from robustframe.frames.coherence import filter_gram
from robustframe.report import look
from robustframe.report.figures import (
    THEMES,
    Example,
    ModelCurve,
    ModelOutcome,
    ModelPoint,
    Paper,
    SweepPoint,
    association_figure,
    caption,
    curve_figure,
    example_figure,
    filters_figure,
    gather_curves,
    gather_examples,
    gather_outcomes,
    gather_points,
    gather_sweeps,
    gram_figure,
    most_robust,
    outcome_figure,
    svg,
    sweeps_figure,
    write,
)
from robustframe.report.figures.examples import magnified
from robustframe.report.figures.filters import atoms
from robustframe.report.figures.style import TWIN_COLOURS, values
from robustframe.report.pixels import coloured
from robustframe.runs import open_run, open_runs
from robustframe.runs.curve import Curve
from robustframe.statistics import least_squares
from robustframe.verification import verify

HOSTILE = "<script>x</script>&\n\x1b[31m\"'四角"
RNG = np.random.default_rng(0)


def curve(
    distances: tuple[float, ...] = (0.0, 0.03, 0.05, math.inf),
    asked: tuple[float, ...] = (0.05, 0.1),
    kind: str = "linf",
) -> Curve:
    return Curve("m", "linf", kind, tuple(range(len(distances))), distances, asked[-1], asked)


def points(count: int, model: str = "m") -> list[ModelPoint]:
    return [
        ModelPoint(f"{model}{at}", twin, 0.3 + at / 100, 50.0 - at + shift, 40.0 - at, 60.0 - at, "linf:0.1")
        for at in range(count)
        for twin, shift in (("feed-forward", 0), ("recurrent", 3))
    ]


def run(tmp_path: Path, name: str = "run", model: str = "a") -> Path:
    clean, robust = np.arange(40) > 3, np.arange(40) > 20
    made = {(f"{model}/{twin}", "linf:0.1"): (clean, robust & clean) for twin in ("feedforward", "recurrent")}
    return make_run(tmp_path / name, made, coherence={f"{model}/{twin}": 0.5 for twin in ("feedforward", "recurrent")})


def test_the_same_twin_has_the_same_colour_in_every_figure() -> None:
    both = [ModelCurve("m", twin, curve()) for twin in ("feed-forward", "recurrent")]
    for drawn in (svg(curve_figure(both)), svg(association_figure(points(6)))):
        assert TWIN_COLOURS[0] in drawn
        assert TWIN_COLOURS[1] in drawn
        assert TWIN_COLOURS[2] not in drawn
    alone = svg(curve_figure([ModelCurve("m", "recurrent", curve())]))
    assert TWIN_COLOURS[1] in alone
    assert TWIN_COLOURS[0] not in alone


def test_figures_repeat_byte_for_byte_and_do_not_share_ids(tmp_path: Path) -> None:
    chart = curve_figure([ModelCurve("m", "recurrent", curve()), ModelCurve("m", "feed-forward", curve())])
    assert svg(chart) == svg(chart)
    for suffix in (".svg", ".pdf", ".png"):
        files = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for file in files:
            write(chart, file)
        assert files[0].read_bytes() == files[1].read_bytes()
    clipped = alt.Chart(values([{"x": 1}])).mark_point(clip=True).encode(x="x:Q")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg(alt.layer(clipped), theme))) for theme in ("light", "dark")]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", svg(alt.layer(clipped)))) <= ids[0]


def test_a_theme_changes_ground_and_ink_only() -> None:
    chart = association_figure(points(6))
    light, dark = svg(chart, "light"), svg(chart, "dark")
    assert THEMES["light"].background in light
    assert THEMES["dark"].background in dark
    assert THEMES["dark"].ink in dark
    assert THEMES["dark"].background not in light
    with pytest.raises(InputError, match="unknown theme 'bark'; did you mean 'dark'"):
        svg(chart, "bark")


def test_a_thinned_curve_keeps_every_asked_radius_and_never_rises() -> None:
    distances = tuple(sorted(RNG.uniform(0, 0.1, 5000).tolist()))
    long = curve(distances, (0.0333, 0.1))
    kept = long.points(120)
    assert len(kept) < 140
    assert {0.0, 0.0333, 0.1} <= {point.eps for point in kept}
    assert set(kept) < set(long.points())
    assert all(point.robust == long.at(point.eps) for point in kept)
    worst = max(abs(long.at(a.eps).value - long.at(b.eps).value) for a, b in itertools.pairwise(kept))
    assert worst < 0.03


def test_other_examples_get_panels_of_their_own() -> None:
    one, two = (ModelCurve("m", "single", curve(), data) for data in ("digits", "clothes"))
    text = svg(curve_figure([one, two]))
    assert "digits" in text
    assert "clothes" in text
    assert text.count("Radius ε") == 2


def test_curves_of_another_goal_get_panels_of_their_own() -> None:
    one, two = (ModelCurve("m", "single", curve(kind=kind)) for kind in ("linf", "linf to next"))
    text = svg(curve_figure([one, two]))
    assert text.count("Radius ε") == 2
    assert " to next" in text


def test_the_line_and_its_interval_are_those_of_scipy() -> None:
    from scipy.stats import linregress, t

    x, y = RNG.normal(size=30), RNG.normal(size=30)
    line, wanted = least_squares(x, y), linregress(x, y)
    assert line is not None
    assert line.slope == pytest.approx(wanted.slope)
    assert line.intercept == pytest.approx(wanted.intercept)
    # At x = 0 the line is its intercept.
    reach = wanted.intercept_stderr * t.ppf(0.975, 28)
    assert line.interval(0.0).low == pytest.approx(wanted.intercept - reach)
    assert line.interval(0.0).high == pytest.approx(wanted.intercept + reach)
    assert least_squares([1, 1, 1], [1, 2, 3]) is None
    with pytest.raises(InputError, match="at least 3 numbers"):
        least_squares([1, 2], [1, 2])
    with pytest.raises(InputError, match="finite numbers"):
        least_squares([1, 2, math.nan], [1, 2, 3])


def test_groups_are_drawn_apart_below_a_line_about_all_of_them() -> None:
    """Within either group robustness falls; the second is higher in both numbers, so that pooled it would rise."""
    both = [
        replace(each, group=group, x=each.x + at, y=each.y + 40 * at)
        for at, group in enumerate(("trained normally", "trained against linf:0.1"))
        for each in points(8)
    ]
    chart = association_figure(both)
    drawn = svg(chart)
    assert len(chart.to_dict()["vconcat"]) == 2
    assert "linf:0.1, trained normally" in drawn
    assert "linf:0.1, all groups:" in drawn
    assert re.search(r"Spearman's ρ −1\.00 \[−1\.00, −0\.\d+\], p", drawn)
    assert "16 models ranked within 2 groups" in drawn
    assert "all groups" not in svg(association_figure(points(8)))


def test_what_is_wrong_when_clean_or_doubted_has_no_part_in_ranks_and_line() -> None:
    own = [replace(each, clean=0.9) for each in points(6) if each.twin == "recurrent"]
    far = ModelPoint("far", "recurrent", 0.9, 90.0, panel="linf:0.1", clean=0.3)
    drawn = svg(association_figure([*own, far]))
    assert "ρ −1.00" in drawn
    assert "6 models; left out: 1 below" in drawn
    assert "left out: 1 doubted" in svg(association_figure([*own, replace(far, clean=0.9, doubted=True)]))
    assert "ρ −1.00" not in svg(association_figure([*own, replace(far, clean=0.9)]))


def test_ranks_are_stated_where_there_are_enough_models() -> None:
    assert "Spearman's ρ −1.00 [−1.00, −0.62]" in svg(association_figure(points(6)))
    few = svg(association_figure(points(3)))
    assert "3 models, too few for a rank correlation" in few
    assert "ρ" not in few
    with pytest.raises(InputError, match="finite numbers"):
        association_figure([ModelPoint("m", "single", math.nan, 1.0)])


def drawn_rows(whole: dict[str, Any], layer: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of a layer, wherever a chart keeps it."""
    data = layer["data"]
    return data["values"] if "values" in data else whole["datasets"][data["name"]]


def test_names_meet_neither_points_nor_each_other() -> None:
    for count, room in ((5, 560.0), (54, 620.0), (54, 300.0)):
        many = points(count)
        whole = association_figure(many, room=room).to_dict()
        spec = whole["vconcat"][0]
        (texts,) = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text"]
        width, height = spec["width"], spec["height"]
        x0, x1 = texts["encoding"]["x"]["scale"]["domain"]
        y0, y1 = texts["encoding"]["y"]["scale"]["domain"]

        def place(x: float, y: float) -> tuple[float, float]:
            return (x - x0) / (x1 - x0) * width, (y1 - y) / (y1 - y0) * height  # noqa: B023

        boxes = [(*place(each["x"], each["y"]), len(each["model"])) for each in drawn_rows(whole, texts)]
        # Letters of 10 pixels are at most 5.6 wide on average, and 9 high above the line they stand on.
        sides = [(x, y - 9, x + 5.6 * letters, y + 2) for x, y, letters in boxes]
        # Where whiskers stand like trees in a wood there is no place for any.
        assert boxes or count == 54
        for one, other in itertools.combinations(sides, 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for x, y in (place(point.x, point.y) for point in many):
            assert not any(box[0] < x < box[2] and box[1] < y < box[3] for box in sides)
        assert all(box[0] >= 0 and box[2] <= width for box in sides)


def test_no_band_goes_below_zero() -> None:
    low = [ModelPoint(f"m{at}", "recurrent", at / 10, float(at % 3), 0.0, 4.0) for at in range(8)]
    whole = association_figure(low).to_dict()
    spec = whole["vconcat"][0]
    marks = {layer["mark"]["type"]: layer for layer in spec["layer"]}
    assert min(row["low"] for row in drawn_rows(whole, marks["area"])) < 0
    assert marks["area"]["mark"]["clip"] is marks["line"]["mark"]["clip"] is True
    assert marks["point"]["encoding"]["y"]["scale"]["domain"][0] == 0


def test_one_radius_is_a_row_a_model_and_no_line() -> None:
    many = [
        ModelCurve(f"m{at}", twin, curve((0.0, *[math.inf] * (at + 1)), (0.1,)))
        for at in range(54)
        for twin in ("feed-forward", "recurrent")
    ]
    (panel,) = curve_figure(many).to_dict()["vconcat"]
    assert [layer["mark"]["type"] for layer in panel["layer"]] == ["rule", "point"]
    assert panel["layer"][1]["encoding"]["y"]["sort"][:2] == ["m53", "m52"]
    assert panel["height"]["step"] * 54 < 1000
    assert panel["title"]["text"] == "At L∞ ≤ 0.1,"


@pytest.mark.parametrize(("width", "millimetres"), [("1col", 84), ("2col", 174), ("120mm", 120)])
def test_a_figure_has_the_size_that_was_asked_for(tmp_path: Path, width: str, millimetres: float) -> None:
    paper = Paper.of(width, 8.0, 200)
    chart = association_figure(points(6), room=paper.room)
    write(chart, tmp_path / "a.svg", paper=paper)
    write(chart, tmp_path / "a.png", paper=paper)
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert f' width="{millimetres}mm"' in text
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == pytest.approx(millimetres / 25.4 * 200, abs=2)
        assert picture.info["dpi"][0] == pytest.approx(200, abs=0.1)
    # Labels of 11 pixels come out at 8 points, a tenth more or less.
    pixels = float(re.findall(r'viewBox="0 0 ([\d.]+)', text)[0])
    assert 11 * millimetres / 25.4 * 72 / pixels == pytest.approx(8, rel=0.1)
    # What a page sets below the figure stands in the caption alone.
    assert "least squares" not in text
    assert caption(chart).startswith("Coherence and robustness: Lines: least squares")
    assert "Spearman's ρ" in caption(chart)


@pytest.mark.parametrize("width", ["3col", "mm", "5mm", "9999mm"])
def test_a_width_that_no_page_has_is_refused(width: str) -> None:
    with pytest.raises(InputError, match="mm"):
        Paper.of(width)


def test_board_and_figures_have_one_look() -> None:
    css = (Path(look.__file__).parent / "site" / "assets" / "site.css").read_text(encoding="utf-8")
    grounds = re.findall(
        r"--ink: (#\w+); --quiet: (#\w+); --line: (#\w+);.*?--ff: (#\w+); --rec: (#\w+); --one: (#\w+);", css, re.S
    )
    light, dark = ((theme.ink, theme.faint, theme.grid, *theme.twins) for theme in (THEMES["light"], THEMES["dark"]))
    assert grounds == [light, dark, dark]


def test_sweeps_start_at_one() -> None:
    assert ">32<" in svg(sweeps_figure([SweepPoint("m", "clean", sweeps, 8, 10) for sweeps in (1, 4, 32)]))
    with pytest.raises(InputError, match="counted from 1"):
        sweeps_figure([SweepPoint("m", "clean", 0, 8, 10)])


def test_outcomes_say_what_was_not_run_and_name_attacks_as_long_as_needed() -> None:
    made = [
        ModelOutcome("m", "single", "linf:0.1", name, count, 8)
        for name, count in (("robust", 2), ("a@1/01-apgd", 6), ("a@1/02-square", None), ("b@1/01-apgd", 0))
    ]
    text = svg(outcome_figure(made))
    for words in (">25.0<", ">75.0<", ">not run<", ">a@1/01-apgd<", ">square<", ">0<"):
        assert words in text


def test_a_difference_is_magnified_around_grey() -> None:
    clean = torch.full((1, 2, 2), 0.5)
    adversarial = clean + torch.tensor([[[0.1, -0.05], [0.0, 0.0]]])
    gain, shown = magnified(clean, adversarial)
    assert gain == pytest.approx(10)
    assert shown.flatten().tolist() == pytest.approx([1.0, 0.25, 0.5, 0.5])
    assert magnified(clean, clean)[0] == 1
    with pytest.raises(InputError, match="two images of one shape"):
        magnified(clean, torch.zeros(3, 2, 2))
    text = svg(example_figure([Example(clean, adversarial, "cat", "dog", "a@1/01-apgd", "linf:0.1", "m", 0.1)]))
    for words in (">cat<", "→ dog", "× 10<", ">apgd<", ">a@1<", "distance 0.1<"):
        assert words in text
    assert text.count("data:image/png") == 3


def test_a_hostile_name_is_text_in_every_figure() -> None:
    image = torch.zeros(3, 4, 4)
    charts = [
        curve_figure([ModelCurve(HOSTILE, "single", curve(), HOSTILE)], title=HOSTILE),
        association_figure(
            [ModelPoint(HOSTILE, "single", 1.0, 2.0, panel=HOSTILE)], title=HOSTILE, x=HOSTILE, y=HOSTILE
        ),
        sweeps_figure([SweepPoint(HOSTILE, HOSTILE, 1, 1, 2)], title=HOSTILE),
        outcome_figure([ModelOutcome(HOSTILE, "single", HOSTILE, HOSTILE, 1, 2)], title=HOSTILE),
        example_figure([Example(image, image, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)], title=HOSTILE),
    ]
    for chart in charts:
        text = svg(chart)
        assert "<script" not in text
        assert "\x1b" not in text
        assert "&lt;script&gt;" in text


def test_nothing_to_draw_is_said_so() -> None:
    for draw in (curve_figure, association_figure, sweeps_figure, outcome_figure, example_figure):
        with pytest.raises(InputError, match="there are no"):
            draw([])


def test_the_picture_of_a_gram_holds_its_entries() -> None:
    torch.manual_seed(0)
    frame = build_frame((4,), [{"atoms": 6}, {"atoms": 5}, {"atoms": 4}])
    text = svg(gram_figure(frame, title="a < b"))
    assert "a &lt; b" in text
    assert ">w3<" in text
    assert filter_gram(frame).keys() == {(1, 1), (1, 2), (2, 2), (2, 3), (3, 3)}
    values = torch.tensor([[1.0, 0.2], [-1.0, 0.9]])
    colours = coloured(values, 900)
    assert [round(255 * part) for part in colours[:, 0, 0].tolist()] == [252, 255, 164]
    assert [round(255 * part) for part in colours[:, 1, 0].tolist()] == [200, 204, 208]
    assert colours[:, 0, 1].sum() < colours[:, 1, 1].sum()
    large = coloured(torch.eye(1600), 900)
    assert large.shape == (3, 900, 900)
    assert [round(255 * part) for part in large[:, 450, 450].tolist()] == [252, 255, 164]


def test_runs_are_gathered_by_twin_and_named_apart(tmp_path: Path) -> None:
    first = run(tmp_path)
    loaded = open_run(first)
    assert [(each.model, each.twin) for each in gather_curves([loaded])] == [("a", "feed-forward"), ("a", "recurrent")]
    assert [(point.x, point.y) for point in gather_points([loaded])] == [(0.5, 47.5)] * 2
    shares = {outcome.outcome: outcome.count for outcome in gather_outcomes([loaded]) if outcome.twin == "recurrent"}
    assert sum(count or 0 for count in shares.values()) == 40
    assert shares["robust"] == 19
    assert shares["wrong without attack"] == 4
    assert gather_sweeps([loaded]) == []
    with pytest.raises(InputError, match="are the same run; give it once"):
        open_runs([first, first])
    for gather in (gather_curves, gather_points, gather_outcomes, gather_sweeps, gather_examples):
        with pytest.raises(InputError, match="unknown model 'b'"):
            gather([loaded], only=["b"])
    assert [each.twin for each in gather_curves([loaded], ["a/recurrent"])] == ["recurrent"]
    assert most_robust([loaded], 3) == ["a"]
    with pytest.raises(InputError, match="--top 0 must be at least 1"):
        most_robust([loaded], 0)
    assert {each.twin for each in gather_outcomes([loaded], ["a/recurrent"])} == {"recurrent"}
    with pytest.raises(InputError, match="stores no images; a published copy has none"):
        gather_examples([loaded])


def test_atoms_are_drawn_as_they_stand_in_the_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [{"filters": 5, "kernel": 3, "stride": 2, "padding": 1}, {"filters": 4, "kernel": 3, "padding": 1}]
    frame = build_frame((1, 14, 14), layers, "chain")
    first, second = (layer.operator for layer in frame.blocks)
    assert torch.equal(atoms(frame, 1), first.weight)
    codes = torch.zeros(4, *frame.code_shapes[1])
    codes[range(4), range(4), 3, 3] = 1
    whole = first.synthesis(second.synthesis(codes)).detach()
    cut = atoms(frame, 2)
    assert cut.shape == (4, 1, 7, 7)
    assert float(cut.square().sum()) == pytest.approx(float(whole.square().sum()))
    text = svg(filters_figure(frame, title="a < b"))
    assert "layer 2 of 2: 4 of 4 atoms" in text
    assert "a &lt; b" in text
    assert text.count("data:image/png") == 2
    dense = build_frame((3, 4, 4), [{"atoms": 300}], "chain")
    assert "layer 1 of 1: 256 of 300 atoms" in svg(filters_figure(dense))
    residual = build_frame((1, 14, 14), [*layers, {"filters": 5, "kernel": 3, "padding": 1}], "residual")
    assert "layer 2 of" not in svg(filters_figure(residual))
    with pytest.raises(InputError, match="images of one or three channels, not on 2 x 14 x 14"):
        filters_figure(build_frame((2, 14, 14), layers, "chain"))
    for words in (["zoo", "show", "digits-fc2-8"], ["frame", "zoo:digits-fc2-8"]):
        found = CliRunner().invoke(app, [*words, "--filters", str(tmp_path / f"{words[0]}.svg")])
        assert found.exit_code == 0, found.output
    drawn = [(tmp_path / f"{word}.svg").read_text() for word in ("zoo", "frame")]
    assert re.sub("Atoms of [^<]*", "", drawn[0]) == re.sub("Atoms of [^<]*", "", drawn[1])


def test_images_of_a_run_from_python_need_its_examples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), torch.rand(12, 1, 2, 2)
    y = model(x).argmax(1)
    made = evaluate(model, x, y, threat="linf:0.5", battery="quick", out=tmp_path, diagnose=False)
    shown = gather_examples([made], data=from_arrays(x, y), count=100)
    broken = made.rows(*made.verdicts.select("classifier", "threat").row(0)).filter(~pl.col("robust"))
    assert len(shown) == len(broken) > 3
    for example, row in zip(shown, broken.sort("broken_by", "index").iter_rows(named=True), strict=True):
        assert torch.equal(example.clean, x[row["index"]])
        assert float((example.adversarial - example.clean).abs().max()) == pytest.approx(row["distance"])
        assert example.predicted == f"class {model(example.adversarial[None]).argmax()}"
    # They lie beside the run, for whoever opens its folder; a published copy has none.
    opened = open_run(tmp_path)
    for own, other in zip(gather_examples([opened], count=100), shown, strict=True):
        assert torch.equal(own.clean, other.clean)
    assert verify(tmp_path, model).ok
    with pytest.raises(InputError, match="are not those of"):
        gather_examples([made], data=from_arrays(x.flip(0), y))
    (tmp_path / "copy").mkdir()
    for name in ("record.json", "verdicts.parquet", "seal.sha256"):
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    with pytest.raises(InputError, match="was evaluated from Python, and its examples are not beside it"):
        open_run(tmp_path / "copy").examples()


FROM_RECIPE = """
schema = 1
name = "small"
seed = 0
threats = ["linf:0.1"]
battery = ["quick@1"]
diagnose = false
[data]
use = "digits"
count = 10
[[model]]
use = "zoo:digits-fc2-8"
twins = ["feedforward"]
"""


@pytest.mark.parametrize("bytes_", [True, False])
def test_examples_beside_a_run_are_those_that_were_attacked_or_refused(tmp_path: Path, bytes_: bool) -> None:
    data = load("digits").first(10)
    images = (data.images * 255).round().byte() if bytes_ else data.images * 0.987
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    made = evaluate(model, images, data.labels, battery="quick", diagnose=False, out=tmp_path)
    assert torch.equal(made.examples().images, images / 255 if bytes_ else images)
    file = tmp_path / "examples.safetensors"
    assert load_file(file)["images"].dtype == (torch.uint8 if bytes_ else torch.float32)
    others = {"images": images.flip(0).contiguous(), "labels": data.labels}
    right, good = load_file(file), file.read_bytes()
    shapes = [{**right, "labels": right["labels"].view(*shape)} for shape in ((10, 1), (2, 5))]
    kinds = [{**right, "labels": right["labels"].to(kind)} for kind in (torch.int32, torch.float32, torch.bfloat16)]
    more = [{"images": images}, {**others, "images": images.double()}, {**right, "more": data.labels}, others]
    for content in (*(save(each) for each in (*shapes, *kinds, *more)), good[:-1], b"{}", b""):
        file.write_bytes(content)
        with pytest.raises(IntegrityError, match=r"examples\.safetensors"):
            open_run(tmp_path).examples()
        found = verify(tmp_path)
        assert not found.ok
        assert "examples.safetensors" in str(found)
    file.write_bytes(good)
    assert verify(made, model).ok
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(FROM_RECIPE)
    evaluate_recipe(recipe, out=tmp_path / "other")
    assert verify(tmp_path / "other").ok
    shutil.copy(file, tmp_path / "other")
    assert "nothing in the record explains this file" in str(verify(tmp_path / "other"))


@pytest.mark.parametrize("command", ["table", "report", *KINDS])
def test_a_run_whose_verdicts_were_edited_is_refused_in_one_sentence(tmp_path: Path, command: str) -> None:
    edited = tmp_path / "run"
    shutil.copytree("evaluations/default/results", edited)
    mine = (pl.col("classifier") == "fmnist-chain3-linf/feedforward") & (pl.col("index") < 300)
    verdicts = pl.read_parquet(edited / "verdicts.parquet").with_columns(pl.col("robust") & ~mine)
    verdicts.write_parquet(edited / "verdicts.parquet")
    out = tmp_path / ("out" if command == "report" else "out.svg")
    words = {"table": ["table", str(edited)], "report": ["report", str(edited), "--out", str(out)]}
    asked = words.get(command, ["figure", command, str(edited), "--out", str(out)])
    done = subprocess.run([sys.executable, "-m", "robustframe", *asked], capture_output=True, text=True, check=False)
    sentence = (
        f"error: {edited}/verdicts.parquet is not what its record says; `robustframe verify {edited}` says more\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
    assert not out.exists()


def test_the_command_draws_what_it_is_told_and_refuses_in_words(tmp_path: Path) -> None:
    made = str(run(tmp_path))
    said = CliRunner().invoke(app, ["figure", "--help"]).stdout
    assert all(re.search(rf"^\s+{kind}\s+\w", said, re.MULTILINE) for kind in KINDS)
    for kind in ("curves", "coherence", "attacks"):
        out = tmp_path / f"{kind}.svg"
        done = CliRunner().invoke(app, ["figure", kind, made, "--out", str(out), "--theme", "dark", "--title", "Mine"])
        assert done.exit_code == 0, done.exception
        assert ">Mine<" in out.read_text(encoding="utf-8")
        assert out.with_suffix(".txt").read_text(encoding="utf-8").startswith("Mine")
    sized = ["figure", "curves", made, "--out", str(out), "--width", "1col", "--font", "7", "--top", "1"]
    assert CliRunner().invoke(app, sized).exit_code == 0
    assert ' width="84mm"' in out.read_text(encoding="utf-8")
    for words, sentence in (
        (["exampels", made, "--out", "a.svg"], "did you mean 'examples'"),
        (["curves", made, "--out", "a.jpg"], "ends in .svg, .pdf, .png"),
        (["curves", made, "--out", str(tmp_path / "no" / "a.svg")], "is not there; make it first"),
        (["examples", made, "--out", str(tmp_path / "a.svg"), "--count", "0"], "must be at least 1"),
        (["sweeps", made, "--out", str(tmp_path / "a.svg")], "there are no accuracies over sweeps"),
    ):
        failed = CliRunner().invoke(app, ["figure", *words])
        assert isinstance(failed.exception, InputError)
        assert sentence in str(failed.exception)
    (tmp_path / "taken.svg").mkdir()
    with pytest.raises(InputError) as refused:
        write(curve_figure([ModelCurve("m", "single", curve())]), tmp_path / "taken.svg")
    assert str(refused.value).count("cannot be written") == 1
