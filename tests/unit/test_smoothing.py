"""Randomised smoothing: against models whose smoothed answer is known, and as a row of a run."""

import json
from pathlib import Path

import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn

import robustframe
from robustframe.attacks import FGSM
from robustframe.certify import Smoothed, smoothed_radius
from robustframe.certify.smoothing import at_least
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.models.classifiers import load_models
from robustframe.pairs import Pair
from robustframe.recipe import ModelSpec
from robustframe.recipe.recipes import Smoothing
from robustframe.report.robustness import _smoothed as smoothed_row
from robustframe.runs import open_run
from robustframe.runs.record import ClassifierEntry, Record
from robustframe.zoo import load_named

SIGMA = 0.5


class Half(nn.Module):
    """Says on which side of a plane an image lies; smoothed it is the same classifier."""

    def forward(self, x: Tensor) -> Tensor:
        height = x.flatten(1).sum(1) / x[0].numel() ** 0.5
        return torch.stack([-height, height], 1)


def at_distances(distances: list[float]) -> Tensor:
    direction = torch.ones(1, 3, 4) / 12**0.5
    return torch.stack([distance * direction for distance in distances])


def test_a_radius_is_no_longer_than_the_distance_and_nearly_as_long() -> None:
    distances = [0.1, 0.3, 0.6, 0.9, 1.2]
    x = at_distances(distances)
    found = smoothed_radius(Smoothed(Half(), SIGMA, samples=20_000), x, torch.ones(5, dtype=torch.long))
    for radius, distance in zip(found.radius.tolist(), distances):
        assert 0.9 * distance - 0.02 < radius <= distance
    assert found.proved.all()


def test_a_wrong_class_and_no_majority_are_radius_zero() -> None:
    x = at_distances([-0.5, 0.0, 0.5])
    found = smoothed_radius(Smoothed(Half(), SIGMA), x, torch.ones(3, dtype=torch.long))
    assert found.radius[:2].tolist() == [0, 0]
    assert found.proved.tolist() == [True, False, True]


def test_the_bound_is_exact() -> None:
    # The chance of so many hits or more, were the bound the truth, is alpha.
    for hits, trials, alpha in ((990, 1000, 0.001), (700, 1000, 0.05), (20, 20, 0.01)):
        least = at_least(hits, trials, alpha)
        assert binom.sf(hits - 1, trials, least) == pytest.approx(alpha, rel=1e-6)
    assert at_least(0, 50, 0.01) == 0
    assert norm.ppf(at_least(1000, 1000, 0.001)) == pytest.approx(2.464, abs=1e-3)


def test_certificates_belong_to_the_image() -> None:
    x, y = at_distances([0.1, 0.2, 0.3, 0.4]), torch.ones(4, dtype=torch.long)
    smooth = Smoothed(Half(), SIGMA, samples=300)
    whole = smoothed_radius(smooth, x, y).radius
    assert torch.equal(whole[2:3], smoothed_radius(smooth, x[2:3], y[2:3], batch_size=37).radius)


def test_votes_decide_and_the_softmax_has_the_gradient() -> None:
    x = at_distances([0.05, 0.4]).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shares = (401 * Smoothed(Half(), SIGMA, draws=400)(x).exp() - 0.5) / 400
    assert torch.allclose((400 * shares).round(), 400 * shares, atol=1e-3)
    expected = norm.cdf(torch.tensor([0.05, 0.4]) / SIGMA)
    assert shares[:, 1].tolist() == pytest.approx(expected.tolist(), abs=0.08)
    (slope,) = torch.autograd.grad(shares[:, 1].sum(), x)
    assert (slope > 0).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sigma": 0.0}, "sigma 0.0"),
        ({"sigma": 0.1, "alpha": 1.0}, "alpha 1.0"),
        ({"sigma": 1.0, "samples": 0}, "samples 0 must be a whole number of at least 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(settings: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Smoothed(Half(), **settings)  # type: ignore[arg-type]


class Unsure(nn.Module):
    """Gives a class to bright images alone."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).sum(1, keepdim=True)
        return torch.where(bright > 0, torch.tensor([0.0, 1.0]), torch.nan)


def test_copies_without_a_class_have_no_vote() -> None:
    shares = Smoothed(Unsure(), 0.1, draws=4)(at_distances([-1.0, 1.0])).exp()
    assert torch.allclose(shares, torch.tensor([[0.1, 0.1], [0.1, 0.9]]))


def test_no_images_have_no_radii() -> None:
    smooth = Smoothed(Half(), SIGMA, samples=10)
    assert len(smoothed_radius(smooth, at_distances([0.1])[:0], torch.ones(0, dtype=torch.long)).radius) == 0


def test_a_smoothed_twin_is_another_classifier_than_the_twin(tiny_card: Path) -> None:
    use = f"card:{tiny_card}"
    specs = [
        ModelSpec(use=use, name="plain"),
        ModelSpec(use=use, name="little", smooth=Smoothing(sigma=0.1)),
        ModelSpec(use=use, name="much", smooth=Smoothing(sigma=0.2)),
    ]
    entries = [each.entry for each in load_models(specs, folder=tiny_card.parent, device=torch.device("cpu"))]
    assert len({each.sha256 for each in entries}) == 3
    assert entries[0].sha256 == json.loads(tiny_card.read_text())["sha256"]


def test_the_caption_says_how_each_classifier_was_certified(tiny_card: Path) -> None:
    pair, card = load_named(f"card:{tiny_card}", folder=tiny_card.parent)
    assert isinstance(pair, Pair)
    digits = load("digits").first(6)

    def caption(model: nn.Module) -> str:
        run = robustframe.evaluate(model, digits, threat="l2:0.01", battery=FGSM(), diagnose=False)
        return " ".join(run.table().split())

    assert "(Lipschitz bound)" in caption(pair.feedforward)
    assert "(randomised smoothing)" in caption(Smoothed(pair.feedforward, 0.1, samples=20))
    use = f"card:{tiny_card}"
    models = [{"use": use, "name": "plain"}, {"use": use, "smooth": {"sigma": 0.1}}]
    record = Record.model_construct(recipe={"model": models})
    for name, smooth in (("plain", False), (card.name, True)):
        assert smoothed_row(record, ClassifierEntry.model_construct(model=name, use=use, twin="feedforward")) is smooth


def test_a_run_states_both_sides_and_verifies(tiny_card: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.toml").write_text(
        'schema = 1\nname = "noisy"\nversion = "1"\nvotes = 5\n[[attack]]\nuse = "apgd"\nsteps = 4\neot = 2\n'
    )
    (tmp_path / "recipe.toml").write_text(
        'schema = 1\nname = "smooth"\nseed = 0\nthreats = ["l2:0.2", "linf:0.02"]\nbattery = ["noisy.toml"]\n'
        f'diagnose = false\n[data]\nuse = "digits"\ncount = 30\n[[model]]\nuse = "card:{tiny_card}"\n'
        "smooth = { sigma = 0.15, samples = 200 }\n"
    )
    run = robustframe.evaluate_recipe(tmp_path / "recipe.toml", runs=tmp_path / "runs", device="cpu")
    for result in run.results:
        assert result.certified_correct is not None
        assert 0 < result.certified_correct <= result.robust_correct + 1
    assert "(randomised smoothing)" in " ".join(run.table().split())
    found = open_run(run.folder).verify()
    assert found.ok, str(found)
