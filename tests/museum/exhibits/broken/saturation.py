"""Values so large that losses, halves or activations lose their gradient."""

import torch
from torch import Tensor, nn

from exhibits.nets import Around, dense, fit, net, trained
from exhibits.pieces import MASKED, broken

DISTILLED = "defensive distillation (Papernot et al., 2016, arXiv:1511.04508; broken by Carlini and Wagner, 2017)"
SATURATED = ("not-logits", *MASKED)


@broken(
    about="Logits are multiplied by a thousand, so that the cross-entropy has no gradient.",
    source=DISTILLED,
    checks=SATURATED,
    answers="other",
    gradient="true",
    cure="swift@2",
)
def temperature() -> nn.Module:
    return Around(net(), lambda body, x: 1000 * body(x))


@broken(
    about="Logits leave in float16, where neighbours become equal.",
    source="half precision at the output",
    checks=SATURATED,
    answers="other",
    gradient="wrong",
)
def half_precision() -> nn.Module:
    return Around(net(), lambda body, x: (1000 + 20 * body(x)).half().to(x))


@broken(
    about="Hidden layers compute in float16 at a scale where they overflow into a clamp.",
    source="half precision inside",
    checks=SATURATED,
    answers="other",
    gradient="none",
)
def half_overflow() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        logits = body(x)
        top = (3e5 * (logits - logits.amax(1, keepdim=True))).half().to(x).clamp_min(-60000.0)
        return top

    return Around(net(), run)


@broken(
    about="A softmax at a low temperature, times ten, stands where the logits should.",
    source="probabilities as logits (Carlini and Wagner, 2016, arXiv:1607.04311)",
    checks=SATURATED,
    answers="other",
    gradient="true",
)
def sharp_softmax() -> nn.Module:
    return Around(net(), lambda body, x: 10 * (50 * body(x)).softmax(1))


@broken(
    about="Logits go through a steep sigmoid that is exactly one or zero nearly everywhere.",
    source="saturating outputs (Carlini et al., 2019, arXiv:1902.06705)",
    checks=SATURATED,
    answers="other",
    gradient="none",
)
def steep_sigmoid() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        logits = body(x)
        return 3 * torch.sigmoid(1e4 * (logits - logits.topk(2, 1).values.mean(1, keepdim=True)))

    return Around(net(), run)


@broken(
    about="Hidden units are hyperbolic tangents of a hundred times their input.",
    source="highly nonlinear activations (Goodfellow et al., 2014, arXiv:1412.6572, on RBFs)",
    checks=SATURATED,
    answers="other",
    gradient="true",
)
@trained
def steep_tanh() -> nn.Module:
    def make() -> nn.Module:
        return dense(128, activation=Steep)

    return fit(make, epochs=4)


class Steep(nn.Module):
    """A hyperbolic tangent that is made steep after the training."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh((1 if self.training else 100) * x)
