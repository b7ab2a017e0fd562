"""No attack may succeed inside a certified radius: trained digits pairs, both twins, every certificate."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import pytest
import torch
from torch import nn

from robustframe.attacks import APGD, APGDT, PGD, Attack
from robustframe.certify import Certificate, lipschitz_radius, pursuit_radius, sulam_radius
from robustframe.data import load
from robustframe.draws import Draws
from robustframe.frames import build_frame
from robustframe.pairs import Pair, TrainingPlan, train_pair
from robustframe.pairs.pair import Twin
from robustframe.solvers import AcceleratedPursuit, Implicit
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels

QUANTILES = (0.05, 0.5, 0.9)
PAIRS = {
    "chain": ([{"atoms": 40}, {"atoms": 30}], "chain", 0.0),
    "residual": ([{"atoms": 20}] * 3, "residual", 0.0),
    "conv": ([{"filters": 6, "kernel": 3, "stride": 2, "padding": 1}, {"atoms": 30}], "chain", 0.0),
    "sparse": ([{"atoms": 24}], "chain", 100.0),
}
ATTACKS = (
    PGD(steps=10, step_size=0.25, loss="margin"),
    APGD(steps=10),
    APGDT(steps=6, targets=2),
)


@lru_cache
def pair_of(name: str) -> Pair:
    layers, structure, coherence = PAIRS[name]
    digits = load("digits", split="train")
    torch.manual_seed(0)
    pair = Pair(build_frame((1, 8, 8), layers, structure), classes=10, sweeps=4)
    schedule = TrainingPlan(epochs=5, batch=64, learning_rate=5e-3, coherence=coherence)
    train_pair(pair, digits.images, digits.labels, schedule)
    return pair


def attacked(
    model: nn.Module, x: Images, y: Labels, certificate: Certificate, attacks: Sequence[Attack] = ATTACKS
) -> tuple[int, int]:
    """Attack at several radii every example that is certified there; return how many attempts and successes."""
    tried = broken = 0
    certified = certificate.radius[certificate.radius > 0]
    for quantile in QUANTILES:
        eps = float(certified.quantile(quantile))
        rows = (certificate.radius >= eps).nonzero().squeeze(1)
        threat = ThreatModel(norm="l2", eps=eps)
        for attack in attacks:
            draws = Draws((0, "certificates", quantile, type(attack).__name__), len(rows))
            result = attack.run(model, x[rows], y[rows], threat, draws)
            tried, broken = tried + len(rows), broken + int(result.success.sum())
    return tried, broken


def breakable(model: nn.Module, x: Images, y: Labels, certificate: Certificate, factor: float) -> float:
    """Share of the certified examples that the first attack breaks far outside: it does attack."""
    rows = (certificate.radius > 0).nonzero().squeeze(1)[:100]
    threat = ThreatModel(norm="l2", eps=factor * float(certificate.radius[rows].max()))
    result = ATTACKS[0].run(model, x[rows], y[rows], threat, Draws((0, "outside"), len(rows)))
    return float(result.success.float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["feedforward", "recurrent"])
@pytest.mark.parametrize("name", ["chain", "residual", "conv", "sparse"])
def test_nothing_breaks_inside_a_lipschitz_radius(name: str, twin: str) -> None:
    pair, digits = pair_of(name), load("digits")
    model = pair.feedforward if twin == "feedforward" else pair.recurrent
    certificate = lipschitz_radius(model, digits.images, digits.labels)
    assert (certificate.radius > 0).float().mean() > 0.5
    tried, broken = attacked(model, digits.images, digits.labels, certificate)
    assert tried > 1500
    assert broken == 0
    assert breakable(model, digits.images, digits.labels, certificate, 20) > 0.3


CONVERGED = AcceleratedPursuit(sweeps=300, tolerance=1e-6)
RADII: dict[str, Callable[..., Certificate]] = {"pursuit": pursuit_radius, "sulam": sulam_radius}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "certify"), [("chain", "pursuit"), ("residual", "pursuit"), ("sparse", "pursuit"), ("sparse", "sulam")]
)
def test_nothing_breaks_inside_the_radius_of_a_converged_pursuit(name: str, certify: str) -> None:
    pair, digits = pair_of(name), load("digits")
    x, y = digits.images[:100], digits.labels[:100]
    certificate = RADII[certify](pair, x, y)
    assert certificate.proved.all()
    assert (certificate.radius > 0).float().mean() > 0.5
    model = Twin(pair, 1, solver=CONVERGED, adjoint=Implicit(tolerance=1e-3, steps=21))
    attacks = ATTACKS[:2]
    tried, broken = attacked(model, x, y, certificate, attacks)
    assert tried > 150
    assert broken == 0
    # Not far outside there are adversarial examples: the bound is not idle, and the attack is not blind.
    assert breakable(model, x, y, certificate, 4) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["feedforward", "recurrent"])
def test_nothing_breaks_inside_the_radius_of_an_untrained_pair_on_fashion_images(twin: str) -> None:
    torch.manual_seed(0)
    layers = [
        {"filters": 8, "kernel": 6, "stride": 2, "padding": 2},
        {"filters": 8, "kernel": 4, "stride": 2, "padding": 1},
    ]
    pair = Pair(build_frame((1, 28, 28), layers), classes=10, sweeps=3)
    model = pair.feedforward if twin == "feedforward" else pair.recurrent
    x = load("fashion-mnist", split="test").images[:500]
    with torch.no_grad():
        y = model(x).argmax(1)
    certificate = lipschitz_radius(model, x, y)
    assert (certificate.radius > 0).float().mean() > 0.9
    tried, broken = attacked(model, x, y, certificate, ATTACKS[:2])
    assert tried > 1400
    assert broken == 0


def test_the_check_can_fail() -> None:
    """Radii that are too large by a factor are found out by the same attacks."""
    pair, digits = pair_of("sparse"), load("digits")
    x, y = digits.images[:100], digits.labels[:100]
    honest = lipschitz_radius(pair.feedforward, x, y)
    assert attacked(pair.feedforward, x, y, honest, ATTACKS[:1])[1] == 0
    boast = Certificate(honest.radius * 3, honest.margin, honest.proved, honest.numbers)
    assert attacked(pair.feedforward, x, y, boast, ATTACKS[:1])[1] > 0


def test_the_linf_radius_holds_too() -> None:
    pair, digits = pair_of("sparse"), load("digits")
    x, y = digits.images[:200], digits.labels[:200]
    certificate = lipschitz_radius(pair.feedforward, x, y)
    eps = float(certificate.linf[certificate.linf > 0].quantile(0.5))
    rows = (certificate.linf >= eps).nonzero().squeeze(1)
    threat = ThreatModel(norm="linf", eps=eps)
    result = ATTACKS[0].run(pair.feedforward, x[rows], y[rows], threat, Draws((0, "linf"), len(rows)))
    assert len(rows) > 50
    assert not result.success.any()
