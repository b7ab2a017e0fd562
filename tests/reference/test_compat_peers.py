"""The peers' calls with our attacks behind them, beside the peers (torchattacks 3.5.1, pyautoattack 0.2.0)."""

from typing import Any

import pytest
import torch

from robustframe import compat
from robustframe.threat import ThreatModel

ROWS = 100
NEAREST = {"CW": {"steps": 100}, "DeepFool": {"steps": 10}}
"""Attacks without a radius."""
IN_A_BALL: dict[str, dict[str, Any]] = {
    "FGSM": {"eps": 0.04},
    "BIM": {"eps": 0.04, "alpha": 0.01},
    "PGD": {"eps": 0.04, "alpha": 0.01},
    "EOTPGD": {"eps": 0.04, "alpha": 0.01},
    "PGDL2": {"eps": 0.6, "alpha": 0.15},
    "APGD": {"eps": 0.6, "norm": "L2", "loss": "dlr"},
    "APGDT": {"eps": 0.04, "n_classes": 5},
    "FAB": {"eps": 0.04, "steps": 20},
    "Square": {"eps": 0.04, "n_queries": 200},
    "SPSA": {"eps": 0.04, "nb_iter": 10, "lr": 0.01},
}
NOISE = 0.03
"""What another random start or stop makes of a robust accuracy here."""


def both(trained, name, settings):
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    ours = getattr(compat, name)(model, **settings)(x, y)
    with torch.random.fork_rng():
        theirs = getattr(torchattacks, name)(model, **settings)(x.clone(), y.clone()).detach()
    return ours, theirs, x


@pytest.mark.parametrize("name", IN_A_BALL)
def test_an_attack_leaves_no_more_than_its_namesake(trained, name):
    settings = IN_A_BALL[name]
    ours, theirs, x = both(trained, name, settings)
    norm = {"L2": "l2", "Linf": "linf"}[settings.get("norm", "L2" if name.endswith("L2") else "Linf")]
    assert ThreatModel(norm=norm, eps=settings["eps"]).contains(x, ours).all()
    left = [(trained[0](each).argmax(1) == trained[2][:ROWS]).float().mean().item() for each in (ours, theirs)]
    assert left[1] < 1, "nothing is broken, so nothing is compared"
    assert left[0] <= left[1] + NOISE, left


@pytest.mark.parametrize("name", NEAREST)
def test_an_attack_without_a_radius_goes_no_farther_than_its_namesake(trained, name):
    ours, theirs, x = both(trained, name, NEAREST[name])
    assert ((ours >= 0) & (ours <= 1)).all()
    broken = [trained[0](each).argmax(1) != trained[2][:ROWS] for each in (ours, theirs)]
    assert broken[0].sum() >= broken[1].sum() > 0
    shared = broken[0] & broken[1]
    lengths = [(each - x).flatten(1).norm(dim=1)[shared].mean().item() for each in (ours, theirs)]
    assert lengths[0] <= 1.05 * lengths[1], lengths


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.04), ("L2", 0.6), ("L1", 4.0)])
def test_autoattack_leaves_what_the_original_leaves(trained, norm, eps):
    """With fewer steps, targets and queries than by default, the same ones on both sides."""
    pyautoattack = pytest.importorskip("pyautoattack")
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    attacks = ["apgd-ce", "apgd-t", "fab-t", "square"]
    ours = compat.AutoAttack(model, norm, eps, 0, False, attacks, "custom", device="cpu")
    theirs = pyautoattack.AutoAttack(model, norm=norm, eps=eps, seed=0, attacks=attacks, version="custom")
    for each in (ours, theirs):
        each.apgd.n_iter, each.apgd.n_restarts, each.apgd_targeted.n_iter, each.fab.n_iter = 40, 2, 10, 10
        each.apgd_targeted.n_target_classes = each.fab.n_target_classes = 2
        each.square.n_queries = 50
    theirs.apgd.use_largereps = theirs.apgd_targeted.use_largereps = norm == "L1"
    images = ours.run_standard_evaluation(x, y)
    with torch.random.fork_rng():
        expected, _ = theirs.run_standard_evaluation(x.clone(), y.clone())
    assert ThreatModel(norm=norm.lower(), eps=eps).contains(x, images).all()
    left = [(model(each).argmax(1) == y).float().mean().item() for each in (images, expected)]
    assert 0.05 < left[1] < 0.95
    assert left[0] <= left[1] + 0.01, left
