"""Gradients that are buried, clipped or broken on their way back; the answers are the undefended net's."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from exhibits.backward import Bent
from exhibits.nets import Around, net
from exhibits.pieces import MASKED, WRONG, broken


@broken(
    about="Noise of four times its size is added to the gradient, and to nothing else.",
    source="gradient noise (stochastic gradients of Athalye et al., 2018, arXiv:1802.00420)",
    checks=WRONG,
    gradient="noisy",
)
def noisy_gradient() -> nn.Module:
    def bury(slope: Tensor) -> Tensor:
        size = slope.flatten(1).std(1).view(-1, 1, 1, 1)
        return slope + 4 * size * torch.randn_like(slope)

    return Bent(net(), bury)


@broken(
    about="All but one in fifty pixels of the gradient are dropped, other ones each time.",
    source="gradient dropout",
    checks=WRONG,
    gradient="noisy",
)
def thinned_gradient() -> nn.Module:
    return Bent(net(), lambda slope: slope * (torch.rand_like(slope) < 0.02))


@broken(
    about="Noise that belongs to the image is added to the gradient.",
    source="gradient noise, without the randomness that gives it away",
    checks=WRONG,
)
def seeded_noise() -> nn.Module:
    def bury(slope: Tensor) -> Tensor:
        waves = torch.sin(1e7 * slope / slope.flatten(1).std(1).clamp_min(1e-30).view(-1, 1, 1, 1))
        return slope + 6 * slope.flatten(1).std(1).view(-1, 1, 1, 1) * waves

    return Bent(net(), bury)


@broken(
    about="A hook clips the gradient of the first layer to positive numbers.",
    source="hooks for clipping, left in",
    checks=WRONG,
)
def clipping_hook() -> nn.Module:
    body = copy.deepcopy(net())

    def clip(module: nn.Module, into: tuple[Any, ...], out: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(None if slope is None else slope.clamp_min(0) for slope in into)

    body[0].register_full_backward_hook(clip)
    return body


@broken(
    about="A hook on the image keeps the 20 largest entries of its gradient.",
    source="sparsified gradients (Lin et al., 2018, arXiv:1712.01887)",
    checks=WRONG,
)
def sparse_hook() -> nn.Module:
    def hooked(body: nn.Module, x: Tensor) -> Tensor:
        if x.requires_grad:
            x = x.clone()
            x.register_hook(
                lambda slope: (
                    slope * (slope.abs() >= slope.flatten(1).abs().topk(20, 1).values[:, -1].view(-1, 1, 1, 1))
                )
            )
        return body(x)

    return Around(net(), hooked)


@broken(
    about="The gradient is scaled below the smallest number of float32.",
    source="vanishing gradients (Carlini et al., 2019, arXiv:1902.06705)",
    checks=MASKED,
    gradient="none",
)
def vanishing_gradient() -> nn.Module:
    return Bent(net(), lambda slope: slope * 0.0)


@broken(
    about="A square root at zero turns every gradient into NaN.",
    source="`torch.where` and the gradient of the branch not taken",
    checks=MASKED,
    gradient="none",
)
def nan_gradient() -> nn.Module:
    def rooted(body: nn.Module, x: Tensor) -> Tensor:
        return body(torch.where(x >= 0, x, torch.sqrt(torch.zeros_like(x) * x)))

    return Around(net(), rooted)


@broken(
    about="A tenth of the pixels has an infinite gradient.",
    source="division by a standard deviation of zero",
    checks=MASKED,
    gradient="none",
)
def infinite_gradient() -> nn.Module:
    def blown(slope: Tensor) -> Tensor:
        return torch.where(
            torch.rand(784, generator=torch.Generator().manual_seed(0)).view(28, 28).to(slope) < 0.1, torch.inf, slope
        )

    return Bent(net(), blown)
