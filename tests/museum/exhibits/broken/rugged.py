"""The gradient is the derivative, and leads nowhere: the loss is rugged, or something was put in its way."""

import torch
from torch import Tensor, nn

from exhibits.backward import fixed
from exhibits.nets import Around, dense, fit, net, trained
from exhibits.pieces import WRONG, broken

RUGGED = ("unstable-predictions", "more-steps-gain", *WRONG)
"""Over the length of an attack's step the slopes are others."""


class WinnersTakeAll(nn.Module):
    """Keeps the largest entries only."""

    def __init__(self, share: float = 0.05) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        kept = x.topk(max(int(self.share * x.shape[1]), 1), dim=1).indices
        return x * torch.zeros_like(x).scatter(1, kept, 1.0)


@broken(
    about="Only the largest twentieth of hidden units is kept, and which they are changes all the time.",
    source="k-winners-take-all (Xiao et al., 2020, arXiv:1905.10510)",
    checks=RUGGED,
    answers="other",
    gradient="true",
    cure="winners.toml",
)
@trained
def winners_take_all() -> nn.Module:
    return fit(lambda: dense(256, 256, activation=WinnersTakeAll), epochs=3)


@broken(
    about="A ripple on every pixel, too small to matter, is steeper than the image.",
    source="gradient shattering (Athalye et al., 2018, arXiv:1802.00420)",
    checks=RUGGED,
    answers="other",
    gradient="true",
)
def rippled_image() -> nn.Module:
    return Around(net(), lambda body, x: body(x + 0.01 * torch.sin(400 * x)))


@broken(
    about="A ripple along a random direction is added to every logit.",
    source="gradient shattering (Athalye et al., 2018, arXiv:1802.00420)",
    checks=RUGGED,
    answers="other",
    gradient="true",
)
def rippled_logits() -> nn.Module:
    ways = fixed(784, 10)

    def run(body: nn.Module, x: Tensor) -> Tensor:
        return body(x) + 0.2 * torch.sin(20 * x.flatten(1) @ ways.to(x))

    return Around(net(), run)


@broken(
    about="Steep small traps in fixed directions, one a class, attract the gradient and give nothing.",
    source="trapdoors (Shan et al., 2020, arXiv:1904.08554)",
    checks=RUGGED,
    answers="other",
    gradient="true",
)
def honeypot() -> nn.Module:
    ways = torch.sign(fixed(784, 10))

    def run(body: nn.Module, x: Tensor) -> Tensor:
        depth = x.flatten(1) @ ways.to(x)
        # A triangle wave: everywhere steep, nowhere high.
        return body(x) + 0.3 * (2 / torch.pi) * torch.asin(torch.sin(2 * depth) * 0.999)

    return Around(net(), run)
