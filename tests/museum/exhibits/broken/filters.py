"""The image is filtered or purified first."""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.nets import Around, net, practice
from exhibits.pieces import MASKED, broken

PURIFYING = "Defense-GAN (Samangouei et al., 2018, arXiv:1805.06605; broken by Athalye et al., 2018, arXiv:1802.00420)"


def median(x: Tensor) -> Tensor:
    """Return the median of 3 x 3 pixels."""
    patches = F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3)
    return patches.view(len(x), 9, -1).median(1).values.view_as(x)


def cosines(size: int) -> Tensor:
    """Return the orthonormal matrix of the discrete cosine transform."""
    at = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi * (at + 0.5) * at[:, None] / size) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def compressed(x: Tensor, step: float = 0.25) -> Tensor:
    """Round the cosine coefficients of blocks of 4 x 4 pixels, as JPEG does with larger ones."""
    waves = cosines(4).to(x)
    blocks = x.view(-1, 1, 7, 4, 7, 4).transpose(3, 4)
    coefficients = ((waves @ blocks @ waves.T) / step).round() * step
    return (waves.T @ coefficients @ waves).transpose(3, 4).reshape(x.shape)


def smoothed(x: Tensor, steps: int = 10) -> Tensor:
    """Descend on distance plus total variation, without a gradient of its own."""
    with torch.no_grad():
        clean = x.clone()
        for _ in range(steps):
            across = F.pad(clean.diff(dim=-1), (1, 1)).tanh().diff(dim=-1)
            down = F.pad(clean.diff(dim=-2), (0, 0, 1, 1)).tanh().diff(dim=-2)
            clean = clean + 0.2 * (across + down) - 0.1 * (clean - x)
        return clean.clamp(0, 1)


@cache
def axes() -> tuple[Tensor, Tensor]:
    """The mean of the images that nets are trained on, and their 40 main axes, in float64."""
    flat = practice()[0].flatten(1).double()
    mean = flat.mean(0)
    _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean))
    return mean, vectors[:, -40:]


def projected(x: Tensor) -> Tensor:
    """Project onto the main axes of the images."""
    mean, vectors = (part.to(x) for part in axes())
    return (mean + (x.flatten(1) - mean) @ vectors @ vectors.T).view_as(x)


def nearest(x: Tensor) -> Tensor:
    """Replace each image by the mean of itself and the nearest of 2000 known ones."""
    with torch.no_grad():
        known = practice()[0][:2000].to(x)
        at = torch.cdist(x.flatten(1), known.flatten(1)).argmin(1)
        return (x + known[at]) / 2


@broken(
    about="A median of 3 x 3 pixels, whose derivative is that of one pixel in nine.",
    source="feature squeezing (Xu et al., 2018, arXiv:1704.01155)",
    checks=MASKED,
    answers="other",
    gradient="true",
)
def median_filter() -> nn.Module:
    return Around(net(), lambda body, x: body(median(x)))


@broken(
    about="Cosine coefficients of 4 x 4 pixels are rounded.",
    source="JPEG compression (Guo et al., 2018, arXiv:1711.00117)",
    checks=MASKED,
    answers="other",
    gradient="none",
)
def jpeg() -> nn.Module:
    return Around(net(), lambda body, x: body(compressed(x)))


@broken(
    about="A few steps against total variation, taken without gradients.",
    source="total variation minimisation (Guo et al., 2018, arXiv:1711.00117)",
    checks=MASKED,
    answers="other",
    gradient="none",
)
def total_variation() -> nn.Module:
    return Around(net(), lambda body, x: body(smoothed(x)))


@broken(
    about="The image is purified by a projection onto 40 axes, detached.",
    source=PURIFYING,
    checks=MASKED,
    answers="other",
    gradient="none",
)
def detached_projection() -> nn.Module:
    return Around(net(), lambda body, x: body(projected(x.detach())))


@broken(
    about="The image is purified by a projection onto 40 axes, and differentiated as if its noise were kept and its "
    "content removed.",
    source=PURIFYING,
    checks=MASKED,
    answers="other",
    gradient="wrong",
)
def residual_projection() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        return body(projected(x.detach()) + (x - projected(x)) - (x - projected(x)).detach())

    return Around(net(), run)


@broken(
    about="The image is mixed with the nearest known one, and the search for it is not differentiated at all.",
    source="nearest-neighbour defences (Dubey et al., 2019, arXiv:1903.01612)",
    checks=MASKED,
    answers="other",
    gradient="none",
)
def nearest_known() -> nn.Module:
    return Around(net(), lambda body, x: body(nearest(x)))


@broken(
    about="A descent inside forward looks for the image of the model's range that is nearest to the one given.",
    source=PURIFYING,
    checks=("input-dependent-computation", *MASKED),
    answers="other",
    gradient="none",
)
def purification() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        mean, vectors = (part.to(x) for part in axes())
        code = torch.zeros(len(x), vectors.shape[1], device=x.device, dtype=x.dtype)
        with torch.enable_grad():
            for _ in range(5):
                code = code.detach().requires_grad_()
                distance = (mean + code @ vectors.T - x.detach().flatten(1)).square().sum() / 2
                code = code - 0.7 * torch.autograd.grad(distance, code)[0]
        return body((mean + code.detach() @ vectors.T).view_as(x))

    return Around(net(), run)
