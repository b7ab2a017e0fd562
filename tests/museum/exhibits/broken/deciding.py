"""What is computed depends on the image, or on whether gradients are asked for."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.backward import borrow
from exhibits.broken.filters import projected
from exhibits.nets import Around, linear, net, other, practice
from exhibits.pieces import BRANCHES, MASKED, WRONG, broken

WATCHFUL = ("differs-under-gradients", *MASKED)


@cache
def usual_distance() -> float:
    """The distance from the main axes beyond which a twentieth of clean images lies."""
    images = practice()[0][:2000]
    return float((images - projected(images)).flatten(1).norm(dim=1).quantile(0.95))


def strange(x: Tensor) -> Tensor:
    """Say which images lie far from the main axes of clean ones; shape (n, 1)."""
    far: Tensor = (x - projected(x)).detach().flatten(1).norm(dim=1, keepdim=True) > usual_distance()
    return far


def halved(x: Tensor) -> Tensor:
    """Replace 2 x 2 pixels by their mean."""
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0)


def surely(body: nn.Module, images: Tensor) -> float:
    """The probability of the best class that a net exceeds on seven of ten images."""
    return float(body(images).softmax(1).amax(1).quantile(0.3))


@broken(
    about="Images of which a linear model is sure leave early, without a gradient.",
    source="early exits (Teerapittayanon et al., 2017, arXiv:1709.01686; slowed down by Hong et al., 2021)",
    checks=BRANCHES,
    answers="other",
    gradient="none",
)
def early_exit() -> nn.Module:
    least = surely(linear(), practice()[0][:500])

    def run(body: nn.Module, simple: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            first = simple(x)
        sure = first.softmax(1).amax(1, keepdim=True) > least
        if bool(sure.all()):
            return first
        return torch.where(sure, first, body(x))

    return Around(net(), linear(), run)


@broken(
    about="A detector returns an eleventh class for images far from clean ones, and cuts their gradient.",
    source="detectors (Carlini and Wagner, 2017, arXiv:1705.07263)",
    checks=BRANCHES,
    answers="other",
    gradient="true",
)
def reject_class() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        logits, odd = body(x), strange(x)
        logits = torch.where(odd, logits.detach(), logits)
        return torch.cat([logits, torch.where(odd, 50.0, -50.0).to(x)], 1)

    return Around(net(), run)


@broken(
    about="Images far from clean ones are handed to a linear model, without a gradient.",
    source="detect and fall back (MagNet: Meng and Chen, 2017, arXiv:1705.09064)",
    checks=BRANCHES,
    answers="other",
    gradient="true",
)
def fallback() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            smooth = body(projected(x))
        return torch.where(strange(x), smooth, body(x))

    return Around(net(), run)


@broken(
    about="Near its boundaries, the only place where it matters, the net shows the gradient of a linear model.",
    source="selective masking (Carlini et al., 2019, arXiv:1902.06705)",
    checks=WRONG,
    gradient="wrong",
)
def masked_when_near() -> nn.Module:
    def run(body: nn.Module, simple: nn.Module, x: Tensor) -> Tensor:
        logits = body(x)
        first, second = logits.topk(2, 1).values.unbind(1)
        near = (first - second < 4.0).unsqueeze(1)
        return torch.where(near, borrow(logits, simple(x)), logits)

    return Around(net(), linear(), run)


@broken(
    about="While gradients are recorded another net answers.",
    source="`for_attack` switches of published test-time defences (Croce et al., 2022, arXiv:2202.13711)",
    checks=WATCHFUL,
    gradient="wrong",
)
def watchful() -> nn.Module:
    return Around(net(), other(), lambda body, shown, x: shown(x) if torch.is_grad_enabled() else body(x))


@broken(
    about="Where an image asks for its gradient, the value is right and the gradient another net's.",
    source="`for_attack` switches of published test-time defences (Croce et al., 2022, arXiv:2202.13711)",
    checks=WRONG,
    gradient="wrong",
)
def watchful_gradient() -> nn.Module:
    def run(body: nn.Module, shown: nn.Module, x: Tensor) -> Tensor:
        return borrow(body(x), shown(x.flip(-1))) if x.requires_grad else body(x)

    return Around(net(), linear(), run)


@broken(
    about="The image is coarsened until the net is sure of it, so that gradients stop at the coarsest.",
    source="adaptive computation (Wang et al., 2020, arXiv:2010.05300)",
    checks=BRANCHES,
    answers="other",
    gradient="none",
)
def coarse_first() -> nn.Module:
    least = surely(net(), halved(practice()[0][:500]))

    def run(body: nn.Module, x: Tensor) -> Tensor:
        said = body(halved(x))
        sure = said.softmax(1).amax(1, keepdim=True) > least
        if bool(sure.all()):
            return said.detach()
        return torch.where(sure, said.detach(), body(x))

    return Around(net(), run)
