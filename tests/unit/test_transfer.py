"""Attacks that carry over: momentum and its relatives against their formulas, sources on targets, and the matrix."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import robustframe
from robustframe.attacks import MIFGSM, PGD, TransferAttack
from robustframe.attacks.momentum import _shrunk, _smoothed
from robustframe.cli import app
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.evaluation import evaluate, evaluate_recipe
from robustframe.probe import Probe
from robustframe.recipe import Battery
from robustframe.threat import ThreatModel
from robustframe.verification.matrix import matrix_tables, transfer_matrix

THREAT = ThreatModel.parse("linf:0.1")


class Steady(nn.Module):
    """A smooth classifier of 8 x 8 images that is hard to break, so that searches go all their steps."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(64, 20, generator=generator) / 8)
        self.second = nn.Parameter(torch.randn(20, 4, generator=generator) / 5)
        self.lead = torch.tensor([5.0, 0, 0, 0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.flatten(1) @ self.first) @ self.second + self.lead


def examples(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return 0.2 + 0.6 * torch.rand(count, 1, 8, 8, generator=generator), torch.zeros(count, dtype=torch.long)


def searched(attack: MIFGSM, model: nn.Module) -> torch.Tensor:
    """The points at which an attack ends."""
    x, y = examples()
    draws = Draws((0,), len(x))
    found = attack.perturb(Probe(model, x, y, THREAT), x, THREAT, draws)
    assert found is not None
    return found


def gradient(model: nn.Module, points: torch.Tensor) -> torch.Tensor:
    leaf = points.clone().requires_grad_()
    return torch.autograd.grad(
        F.cross_entropy(model(leaf), torch.zeros(len(leaf), dtype=torch.long), reduction="sum"), leaf
    )[0]


def test_momentum_is_the_published_recursion() -> None:
    model = Steady()
    x, _ = examples()
    points, momentum = x, torch.zeros_like(x)
    for _ in range(5):
        slope = gradient(model, points)
        momentum = 0.7 * momentum + slope / slope.abs().sum((1, 2, 3), keepdim=True)
        points = x + (points + 0.02 * momentum.sign() - x).clamp(-0.1, 0.1)
    found = searched(MIFGSM(steps=5, step_size=0.2, decay=0.7), model)
    torch.testing.assert_close(found, points.clamp(0, 1), atol=1e-6, rtol=0)


def test_the_variance_of_neighbours_tunes_the_next_step() -> None:
    model = Steady()
    x, _ = examples()
    draws = Draws((0,), len(x))
    first = gradient(model, x)
    one = x + 0.05 * first.sign()
    offsets = [(2 * draws.child("step", 0).child("neighbour", n).uniform(1, 8, 8) - 1) * 1.5 * 0.1 for n in range(3)]
    variance = torch.stack([gradient(model, x + offset) for offset in offsets]).mean(0) - first
    tuned = gradient(model, one) + variance
    momentum = first / first.abs().mean((1, 2, 3), keepdim=True) + tuned / tuned.abs().mean((1, 2, 3), keepdim=True)
    expected = (x + (one + 0.05 * momentum.sign() - x).clamp(-0.1, 0.1)).clamp(0, 1)
    found = searched(MIFGSM(steps=2, step_size=0.5, neighbours=3), model)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_smoothing_is_a_convolution_that_keeps_a_plain_gradient_away_from_the_edge() -> None:
    plain = torch.ones(2, 3, 9, 9)
    smooth = _smoothed(plain, 5)
    torch.testing.assert_close(smooth[:, :, 2:-2, 2:-2], plain[:, :, 2:-2, 2:-2])
    assert (smooth[:, :, 0] < 0.9).all()
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1
    line = torch.exp(-torch.tensor([-3.0, -1.5, 0.0, 1.5, 3.0]).square() / 2)
    torch.testing.assert_close(_smoothed(point, 5)[0, 0, 2:7, 2:7], torch.outer(line, line) / line.sum() ** 2)
    assert _smoothed(plain, 0) is plain
    assert torch.equal(_smoothed(plain, 1), plain)


def test_a_shrunk_copy_is_smaller_inside_the_frame_and_each_image_has_its_own() -> None:
    x = torch.ones(200, 1, 16, 16)
    seen = _shrunk(x, Draws((1,), 200), 0.5, 0.8)
    mass = seen.mean((1, 2, 3))
    whole = (mass > 1 - 1e-4).float().mean()
    assert 0.35 < whole < 0.65
    # Sides of 0.8 to 1, so areas of 0.64 to 1.
    assert mass.min() > 0.6
    assert mass[mass < 0.99].std() > 0.05
    alone = _shrunk(x[:3], Draws((1,), 200, torch.tensor([5, 6, 7])), 0.5, 0.8)
    assert torch.equal(alone, seen[5:8])
    assert torch.equal(_shrunk(x[:2], Draws((1,), 2), 0.0, 0.8), x[:2])


def test_diverse_gradients_are_those_of_the_copies() -> None:
    model = Steady()
    x, _ = examples()
    draws = Draws((0,), len(x))
    leaf = x.clone().requires_grad_()
    seen = _shrunk(leaf, draws.child("step", 0).child("diversity"), 1.0, 0.7)
    labels = torch.zeros(len(x), dtype=torch.long)
    slope = torch.autograd.grad(F.cross_entropy(model(seen), labels, reduction="sum"), leaf)[0]
    expected = (x + 0.1 * slope.sign()).clamp(0, 1)
    found = searched(MIFGSM(steps=1, step_size=1.0, diversity=1.0, shrink=0.7), model)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kernel": 4}, "kernel = 4 must be 0 or an odd number"),
        ({"diversity": 1.5}, r"diversity = 1.5 must be in \[0, 1\]"),
        ({"shrink": 0.0}, "shrink"),
        ({"neighbours": -1}, "neighbours"),
        ({"decay": -0.1}, "decay"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        MIFGSM(**settings)  # type: ignore[arg-type]


def test_what_needs_an_image_says_so() -> None:
    model = nn.Linear(7, 3)
    with pytest.raises(InputError, match="images of shape"):
        MIFGSM(kernel=3).run(
            model, torch.rand(2, 7), torch.zeros(2, dtype=torch.long), THREAT, Draws((0,), 2), known_correct=True
        )


def test_the_gradients_of_a_source_are_shown_to_the_target_once() -> None:
    x, y = examples()
    source, target = Steady(1), Steady(2)
    attack = TransferAttack(source="source", steps=6)
    result = attack.on(source).run(target, x, y, THREAT, Draws((0,), len(x)), known_correct=True)
    expected = searched(MIFGSM(steps=6), source)
    assert torch.equal(result.success, target(expected).argmax(1) != y)
    assert result.forwards.tolist() == [1 + int(broken) for broken in result.success]
    assert result.backwards.tolist() == [0] * len(x)
    # A search goes on beyond the first success on the source.
    weak = Steady(1)
    weak.lead.zero_()
    found = attack.on(weak).run(target, x, weak(x).argmax(1), THREAT, Draws((0,), len(x)))
    assert found.adversarial.isfinite().all()
    assert source.first.requires_grad


BATTERY = """
schema = 1
name = "sources"
version = "1"
closest = true
[[attack]]
use = "transfer"
name = "one"
source = "{one}"
[[attack]]
use = "transfer"
name = "two"
source = "{two}"
"""
RECIPE = """
schema = 1
name = "transfer"
seed = 0
chunk = 16
threats = ["linf:0.15"]
battery = ["{battery}"]
diagnose = false
[data]
use = "digits"
count = 40
[[model]]
use = "card:{card}"
name = "pair"
"""


def write(folder: Path, card: Path, battery: str) -> Path:
    (folder / "sources.toml").write_text(BATTERY.format(one="pair/feedforward", two="pair/recurrent"))
    (folder / "recipe.toml").write_text(RECIPE.format(card=card, battery=battery))
    return folder / "recipe.toml"


def test_the_matrix_is_that_of_the_attacks_themselves(tiny_card: Path, tmp_path: Path) -> None:
    run = evaluate_recipe(write(tmp_path, tiny_card, "sources.toml"), out=tmp_path / "run", device="cpu")
    matrix = transfer_matrix(run)
    assert (matrix.attacked, matrix.whole, len(matrix.cells)) == (True, True, 4)
    pair = robustframe.zoo.load_card(tiny_card)[0]
    models = {"pair/feedforward": pair.feedforward, "pair/recurrent": pair.recurrent}
    data = run.examples()
    for cell in matrix.cells:
        right = models[cell.target](data.images).argmax(1) == data.labels
        assert cell.shown == int(right.sum())
        own = cell.source == cell.target
        rows = run.attack_rows(
            cell.target, "linf:0.15", "sources@1/01-one" if "feed" in cell.source else "sources@1/02-two"
        )
        assert cell.broken == int(rows["success"].sum())
        # Only its own gradients are counted as passes of the target.
        assert (rows["backwards"].sum() > 0) == own
    assert "pair/recurrent" in CliRunner().invoke(app, ["transfer", str(run.folder), "--format", "md"]).stdout
    assert robustframe.verify(run, device="cpu", folder=tmp_path).whole
    evaluate_recipe(tmp_path / "recipe.toml", out=tmp_path / "isolated", device="cpu", isolate=True)
    for name in ("record.json", "verdicts.parquet"):
        assert (tmp_path / "isolated" / name).read_bytes() == (run.folder / name).read_bytes()


def test_without_such_attacks_stored_images_are_shown_to_the_others(tiny_card: Path, tmp_path: Path) -> None:
    run = evaluate_recipe(write(tmp_path, tiny_card, "quick"), out=tmp_path / "run", device="cpu")
    plot = tmp_path / "matrix.svg"
    said = json.loads(
        CliRunner().invoke(app, ["transfer", str(run.folder), "--device", "cpu", "--json", "--plot", str(plot)]).stdout
    )
    assert not said["attacked"]
    pair = robustframe.zoo.load_card(tiny_card)[0]
    data = run.examples()
    images, broken = run.adversarial("pair/feedforward")
    right = pair.recurrent(data.images).argmax(1) == data.labels
    wrong = pair.recurrent(images).argmax(1) != data.labels[broken]
    (cell,) = [each for each in said["cells"] if each["source"] == "pair/feedforward"]
    assert (cell["shown"], cell["broken"]) == (int((right & broken).sum()), int((wrong & right[broken]).sum()))
    assert "<svg" in plot.read_text()


def test_a_source_that_is_not_in_the_recipe_is_named(tmp_path: Path) -> None:
    x, y = examples()
    models = {"one": Steady(1), "two": Steady(2)}
    with pytest.raises(InputError, match="unknown source of a transfer attack 'three'"):
        evaluate(models, x, y, battery=TransferAttack(source="three"), threat="linf:0.1")
    alone = evaluate(models["one"], x, y, battery=PGD(steps=2), threat="linf:0.1", diagnose=False)
    with pytest.raises(InputError, match="one classifier"):
        transfer_matrix(alone)
    both = evaluate(models, x, y, battery=TransferAttack(source="two", steps=3), threat="linf:0.1", diagnose=False)
    assert len(transfer_matrix(both).cells) == 2


def test_a_battery_without_closest_says_that_later_sources_met_fewer(tiny_card: Path, tmp_path: Path) -> None:
    write(tmp_path, tiny_card, "sources.toml")
    text = (tmp_path / "sources.toml").read_text()
    (tmp_path / "sources.toml").write_text(text.replace("closest = true", ""))
    run = evaluate_recipe(tmp_path / "recipe.toml", out=tmp_path / "run", device="cpu")
    matrix = transfer_matrix(run)
    assert not matrix.whole
    assert "are not counted" in " ".join(run.rank_attacks().unknown)
    assert "no closest = true" in matrix_tables(matrix)[0].caption
    assert Battery.model_validate(run.record.batteries[0]).closest is False
