"""The forward pass is the undefended net's, the gradient another function's, and often it still points uphill."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.backward import Bent, Borrowed, bend, fixed
from exhibits.nets import Around, linear, net, other, sibling
from exhibits.pieces import WRONG, broken

ISSUE = "gradients of a surrogate, as Athalye et al., 2018, arXiv:1802.00420, use them against a defence"


def blurred(x: Tensor) -> Tensor:
    """Return the mean of 9 x 9 pixels."""
    return F.avg_pool2d(x, 9, stride=1, padding=4)


@broken(
    about="The value is the net's, the gradient that of a linear model fitted to the same images.",
    source=ISSUE,
    checks=WRONG,
)
def linear_gradient() -> nn.Module:
    return Borrowed(net(), linear())


@broken(
    about="The gradient is blurred by a mean of 9 x 9 pixels.",
    source="smoothed gradients, as in saliency maps",
    checks=WRONG,
)
def blurred_gradient() -> nn.Module:
    return Bent(net(), blurred)


@broken(about="The gradient is that of a convolutional net trained on the same images.", source=ISSUE, checks=WRONG)
def other_nets_gradient() -> nn.Module:
    return Borrowed(net(), other())


@broken(about="The gradient is that of the same architecture trained from another seed.", source=ISSUE, checks=WRONG)
def siblings_gradient() -> nn.Module:
    return Borrowed(net(), sibling())


@broken(about="The gradient is that of the net before training.", source=ISSUE, checks=WRONG)
def untrained_gradient() -> nn.Module:
    body = copy.deepcopy(net())
    for at, weight in enumerate(body.parameters()):
        weight.copy_(0.1 * fixed(*weight.shape, seed=at))
    return Borrowed(net(), body)


@broken(
    about="The gradient has the wrong sign.",
    source="gradient reversal (Ganin and Lempitsky, 2015, arXiv:1409.7495)",
    checks=WRONG,
)
def flipped_sign() -> nn.Module:
    return Bent(net(), torch.neg)


@broken(
    about="Every pixel of the gradient is scaled by a random number of either sign, always the same.",
    source="gradient obfuscation by keys",
    checks=WRONG,
)
def scaled_pixels() -> nn.Module:
    return Bent(net(), lambda slope: slope * (fixed(28, 28) + 0.5).to(slope))


@broken(about="The pixels of the gradient are permuted.", source="gradient obfuscation by keys", checks=WRONG)
def permuted_pixels() -> nn.Module:
    order = fixed(784).argsort()
    return Bent(net(), lambda slope: slope.flatten(1)[:, order].view_as(slope))


@broken(
    about="The gradient is shifted by three pixels.", source="an off-by-a-crop in a custom backward pass", checks=WRONG
)
def shifted_gradient() -> nn.Module:
    return Bent(net(), lambda slope: slope.roll((3, 3), (-2, -1)))


@broken(
    about="The gradient is mirrored.", source="a convolution differentiated without flipping its kernel", checks=WRONG
)
def mirrored_gradient() -> nn.Module:
    return Bent(net(), lambda slope: slope.flip(-1))


@broken(
    about="The gradient is constant on blocks of 4 x 4 pixels.",
    source="a resampling step with a nearest-neighbour backward",
    checks=WRONG,
)
def coarse_gradient() -> nn.Module:
    return Bent(net(), lambda slope: F.interpolate(F.avg_pool2d(slope, 4), scale_factor=4.0))


@broken(
    about="The gradient belongs to the next class's logit.",
    source="a head whose backward gathers by the wrong index",
    checks=WRONG,
)
def next_class_gradient() -> nn.Module:
    return Around(net(), lambda body, x: bend(body(x), lambda slope: slope.roll(1, 1)))


@broken(
    about="The hidden layers send their errors back through fixed random matrices.",
    source="feedback alignment (Lillicrap et al., 2016, arXiv:1411.0247)",
    checks=WRONG,
)
def random_feedback() -> nn.Module:
    return FeedbackAligned(net())


class FeedbackAligned(nn.Module):
    """A dense net whose linear layers propagate errors through other matrices than their own."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        for at, layer in enumerate(self.body.children()):
            said = layer(x)
            if isinstance(layer, nn.Linear):
                feedback = layer.weight + 3 * layer.weight.std() * fixed(*layer.weight.shape, seed=at).to(x)
                said = layer(x.detach()) + (F.linear(x, feedback) - F.linear(x.detach(), feedback))
            x = said
        return x
