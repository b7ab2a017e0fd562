"""The Square Attack: rows are searched as if alone, and only points that are new."""

import pytest
import torch
from torch import nn

from robustframe.attacks import Square
from robustframe.draws import Draws
from robustframe.threat import ThreatModel

EPS = {"l1": 1.0, "l2": 0.3, "linf": 0.05}


@pytest.fixture(scope="module")
def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(64, 4))
        x = torch.rand(12, 1, 8, 8)
    with torch.no_grad():
        # Near all boundaries at once.
        model[3].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_examples_together_find_what_each_finds_alone(small, norm):
    model, x, y = small
    threat, attack = ThreatModel(norm=norm, eps=EPS[norm]), Square(queries=150)
    together = attack.run(model, x, y, threat, Draws((0,), 12), known_correct=True)
    # Some are broken on the way, so rows move up.
    assert 2 < together.success.sum() < 12
    for row in range(12):
        one = torch.tensor([row])
        alone = attack.run(model, x[one], y[one], threat, Draws((0,), 12, one), known_correct=True)
        assert torch.equal(alone.forwards, together.forwards[one])
        torch.testing.assert_close(alone.adversarial, together.adversarial[one], rtol=0, atol=1e-6)


def test_a_proposal_that_changes_nothing_costs_nothing(small):
    model, x, y = small
    threat = ThreatModel(norm="linf", eps=0.001)
    result = Square(queries=400).run(model, x, y, threat, Draws((0,), 12), known_correct=True)
    survivors = result.forwards[~result.success]
    assert (survivors < 0.96 * 401).all()
    assert (survivors > 0.5 * 401).all()
