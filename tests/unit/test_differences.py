"""Gradients estimated from evaluations: of everything when there are directions enough, and the same in any batch."""

import pytest
import torch
from torch import Tensor

from robustframe.attacks import APGD
from robustframe.data import load
from robustframe.differences import Estimate, random_direction
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.gradients import Gradients
from robustframe.threat import ThreatModel

DIGITS = load("digits").first(40)
BOX = (0.0, 1.0)


def weights(shape: tuple[int, ...], classes: int = 4) -> Tensor:
    return torch.randn(classes, torch.Size(shape).numel(), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 6), (12,), (2, 3), (2, 2, 3, 4)])
def test_as_many_directions_as_pixels_give_the_whole_gradient(shape: tuple[int, ...]) -> None:
    weight = weights(shape)
    inside = (0.3 + 0.4 * torch.rand(5, *shape, generator=torch.Generator().manual_seed(2))).requires_grad_()
    logits = Estimate.apply(inside, lambda x: x.flatten(1) @ weight.T, 10_000, BOX, 16)
    (gradient,) = torch.autograd.grad((logits * torch.arange(4)).sum(), inside)
    torch.testing.assert_close(
        gradient, (torch.arange(4.0) @ weight).view(1, *shape).expand_as(gradient), rtol=1e-3, atol=1e-3
    )


def test_fewer_directions_give_its_part_along_them_and_more_give_more() -> None:
    weight, x = weights((1, 8, 8)), torch.full((3, 1, 8, 8), 0.5, requires_grad=True)
    x.data += 0.01 * torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    cosines = []
    for number in (4, 16, 48):
        logits = Estimate.apply(x, lambda points: points.flatten(1) @ weight.T, number, BOX, 64)
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
        cosines.append(torch.cosine_similarity(gradient.flatten(1), weight[:1]).mean())
        # Orthogonal directions: the estimate is a projection.
        torch.testing.assert_close(
            gradient.flatten(1) @ weight[0], gradient.flatten(1).square().sum(1), rtol=1e-2, atol=1e-2
        )
    assert 0 < cosines[0] < cosines[1] < cosines[2] < 1


def test_no_point_leaves_the_box_and_directions_belong_to_the_image() -> None:
    weight = weights((1, 8, 8))
    seen = []

    def model(x: Tensor) -> Tensor:
        seen.append((float(x.min()), float(x.max())))
        return x.flatten(1) @ weight.T

    x = DIGITS.images[:6].clone()

    def gradient(points: Tensor, batch_size: int) -> Tensor:
        leaf = points.clone().requires_grad_()
        return torch.autograd.grad(Estimate.apply(leaf, model, 8, BOX, batch_size)[:, 1].sum(), leaf)[0]

    whole = gradient(x, 256)
    assert min(low for low, _ in seen) >= 0
    assert max(high for _, high in seen) <= 1
    for order in ([5, 2], [0], [3, 3, 1]):
        torch.testing.assert_close(gradient(x[order], 16), whole[order])
    assert not torch.equal(gradient(x + 0.01, 256), whole)


def test_an_attack_goes_where_no_gradient_leads() -> None:
    weight = weights((1, 8, 8), 10)
    threat = ThreatModel.parse("linf:0.1")

    class Cut(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1) @ weight.T

    model, x = Cut(), DIGITS.images
    y = model(x).argmax(1)

    def attacked(through: str) -> tuple[int, int, int]:
        attack = APGD(steps=5, loss="margin", through=through)
        found = attack.run(model, x, y, threat, Draws((0,), len(x)), known_correct=True)
        return int(found.success.sum()), int(found.forwards.max()), int(found.backwards.sum())

    blind, _, _ = attacked("all")
    broken, forwards, backwards = attacked("estimate:64")
    assert broken > blind + 10
    assert backwards == 0
    # Two evaluations a direction and one of the point itself; then the last point, and its verification.
    assert forwards <= 6 * 129 + 2


@pytest.mark.parametrize("given", ["estimate", "estimate:0", "estimate:x"])
def test_a_number_of_directions_is_asked_for(given: str) -> None:
    with pytest.raises(InputError, match="through"):
        Gradients(through=given)


@pytest.mark.parametrize("grain", [1, 4])
def test_random_directions_are_of_mean_size_one(grain: int) -> None:
    for shape in ((1, 28, 28), (3, 7, 5), (9,)):
        drawn = random_direction(shape, Draws((0,), 6), grain=grain)
        assert drawn.shape == (6, *shape)
        torch.testing.assert_close(drawn.flatten(1).abs().mean(1), torch.ones(6))
    smooth, rough = (random_direction((1, 28, 28), Draws((0,), 4), grain=each) for each in (4, 1))
    change = [each.diff(dim=3).abs().mean() for each in (smooth, rough)]
    assert change[0] < 0.5 * change[1]
