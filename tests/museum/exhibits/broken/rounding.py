"""Steps whose derivative is zero almost everywhere."""

import torch
from torch import Tensor, nn

from exhibits.nets import Around, Front, Step, fit, net, trained
from exhibits.pieces import MASKED, broken

SQUEEZING = "feature squeezing (Xu et al., 2018, arXiv:1704.01155)"
LEVELS = 8


def rounded(x: Tensor) -> Tensor:
    """Round to multiples of an eighth."""
    return (LEVELS * x).round() / LEVELS


@broken(
    about="The image is rounded in a submodule.",
    source=SQUEEZING,
    checks=MASKED,
    answers="other",
    gradient="none",
    cure="bpda.toml",
)
def rounding() -> nn.Module:
    return Front(Step(rounded), net())


@broken(
    about="The image is rounded inside forward, where no submodule can be named.",
    source=SQUEEZING,
    checks=MASKED,
    answers="other",
    gradient="none",
)
def rounding_inside() -> nn.Module:
    return Around(net(), lambda body, x: body(rounded(x)))


@broken(
    about="Hidden units are rounded inside forward.",
    source="quantised activations (Lin et al., 2019, arXiv:1904.08444)",
    checks=MASKED,
    answers="other",
    gradient="none",
)
def rounding_hidden() -> nn.Module:
    return Around(net(), lambda body, x: body[2:](rounded(body[:2](x))))


@broken(
    about="Logits are rounded to whole numbers.",
    source="rounded confidences (Tramèr et al., 2016, arXiv:1609.02943)",
    checks=("not-logits", *MASKED),
    answers="other",
    gradient="none",
)
def rounding_logits() -> nn.Module:
    return Around(net(), lambda body, x: body(x).round())


@broken(
    about="The image is cast to 16 grey levels in bytes.",
    source="preprocessing in integers",
    checks=MASKED,
    answers="other",
    gradient="none",
)
def cast_to_bytes() -> nn.Module:
    return Around(net(), lambda body, x: body((x * 15).round().to(torch.uint8).to(x) / 15))


@broken(
    about="Between the steps of the rounding the image slopes down, so that the derivative has the wrong sign.",
    source="gradient reversal by a sawtooth",
    checks=MASKED,
    answers="other",
    gradient="true",
)
def sawtooth() -> nn.Module:
    return Around(net(), lambda body, x: body(rounded(x) - 0.2 * (x - rounded(x))))


class Thermometer(nn.Module):
    """Turns every pixel into ten bits: whether it is above each tenth."""

    def forward(self, x: Tensor) -> Tensor:
        levels = torch.arange(10, device=x.device, dtype=x.dtype).view(-1, 1, 1) / 10
        return (x > levels).to(x).flatten(1)


@broken(
    about="Pixels are turned into thermometer codes, which have no derivative.",
    source="thermometer encoding (Buckman et al., 2018; broken by Athalye et al., 2018, arXiv:1802.00420)",
    checks=MASKED,
    answers="other",
    gradient="none",
)
@trained
def thermometer() -> nn.Module:
    def make() -> nn.Module:
        return Front(Thermometer(), nn.Sequential(nn.Linear(7840, 32), nn.ReLU(), nn.Linear(32, 10)))

    return fit(make, epochs=2)
