"""Answers are drawn, and one draw decides."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.nets import Around, dense, fit, net, other, sibling, trained
from exhibits.pieces import MASKED, MOVING, broken

EOT = "broken by averages over draws (Athalye et al., 2018, arXiv:1802.00420)"


def one(first: nn.Module, second: nn.Module, third: nn.Module, x: Tensor) -> Tensor:
    """Let one of three nets answer."""
    return (first, second, third)[int(torch.randint(0, 3, ()))](x)  # type: ignore[no-any-return]


def jittered(x: Tensor) -> Tensor:
    """Shift by up to two pixels and add noise, anew each time."""
    down, across = (int(shift) for shift in torch.randint(0, 5, (2,)))
    noisy = x + 0.1 * torch.randn_like(x)
    return F.pad(noisy, (2, 2, 2, 2))[..., down : 28 + down, across : 28 + across]


@broken(
    about="Images are shifted and made noisy, anew each time.",
    source=f"random transformations (Guo et al., 2018, arXiv:1711.00117), {EOT}",
    checks=MOVING,
    answers="random",
    gradient="noisy",
    cure="eot.toml",
)
def random_input() -> nn.Module:
    return Around(net(), lambda body, x: body(jittered(x)))


@broken(
    about="Images are resized at random and padded.",
    source=f"Xie et al., 2018, arXiv:1711.01991, {EOT}",
    checks=MOVING,
    answers="random",
    gradient="noisy",
    cure="eot.toml",
)
def random_resize() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        size = int(torch.randint(23, 28, ()))
        left, top = (int(torch.randint(0, 29 - size, ())) for _ in range(2))
        small = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        return body(F.pad(small, (left, 28 - size - left, top, 28 - size - top)))

    return Around(net(), run)


@broken(
    about="Noise is added to the logits.",
    source=f"noisy outputs (Byun et al., 2022, arXiv:2101.04829), {EOT}",
    checks=MOVING,
    answers="random",
    gradient="true",
    cure="eot.toml",
)
def noisy_logits() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        logits = body(x)
        return logits + logits.detach().std() * torch.randn_like(logits)

    return Around(net(), run)


@broken(
    about="Dropout stays on when the model is used.",
    source=f"stochastic activation pruning (Dhillon et al., 2018, arXiv:1803.01442), {EOT}",
    checks=MOVING,
    answers="random",
    gradient="noisy",
    cure="eot.toml",
)
def dropout() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        for layer in body.children():
            x = F.dropout(layer(x), 0.3, training=True) if isinstance(layer, nn.ReLU) else layer(x)
        return x

    return Around(net(), run)


@broken(
    about="One of three nets answers, drawn anew each time.",
    source=f"random self-ensembles (Liu et al., 2018, arXiv:1712.00673), {EOT}",
    checks=MOVING,
    answers="random",
    gradient="noisy",
    cure="eot.toml",
)
def random_member() -> nn.Module:
    return Around(net(), other(), sibling(), one)


@broken(
    about="Four noisy copies vote, far too few for the noise.",
    source="randomised smoothing with few samples (Cohen et al., 2019, arXiv:1902.02918)",
    checks=(*MOVING, *MASKED),
    answers="random",
    gradient="none",
    cure="eot.toml",
)
def few_samples() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        votes = [F.one_hot(body(x + 0.25 * torch.randn_like(x)).argmax(1), 10) for _ in range(4)]
        return torch.stack(votes).sum(0).to(x) + 0.01 * torch.rand(len(x), 10).to(x)

    return Around(noise_trained(), run)


@trained
def noise_trained() -> nn.Module:
    return fit(lambda: dense(64, 64), epochs=3, noise=0.25)


@broken(
    about="The noise is drawn from a hash of the image, so that the same image gets the same answer.",
    source="keyed randomness (Raff et al., 2019), broken by averages over neighbours",
    checks=("unstable-predictions", *MASKED),
    answers="other",
    gradient="wrong",
)
def hashed_noise() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        key = (x.detach().flatten(1).sum(1) * 1e4).view(-1, 1, 1, 1)
        at = torch.arange(784, device=x.device, dtype=x.dtype).view(1, 1, 28, 28)
        return body(x + 0.15 * torch.sin((key + 1) * (at + 1.7)))

    return Around(net(), run)
