"""Answers depend on more than the image: on its batch, on what was asked before, on the test set itself."""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.backward import borrow
from exhibits.nets import Around, convolutions, fit, net, trained
from exhibits.pieces import MASKED, broken
from robustframe.data import load

STATE = ("claimed-unverified", "randomised", "batch-dependent", *MASKED)


@trained
def normalised() -> nn.Module:
    """A net with batch norm."""
    return fit(lambda: convolutions(norm=nn.BatchNorm2d), epochs=1)


@broken(
    about="Batch norm uses the statistics of the batch that it is asked about.",
    source="test-time batch statistics (Wu et al., 2023, arXiv:2301.12576, on attacks by batch mates)",
    checks=("batch-dependent",),
    undefended=normalised,
    answers="random",
    gradient="true",
)
def batch_statistics() -> nn.Module:
    def run(body: nn.Module, x: Tensor) -> Tensor:
        for layer in body.children():
            x = (
                F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)
                if isinstance(layer, nn.BatchNorm2d)
                else layer(x)
            )
        return x

    return Around(normalised(), run)


@broken(
    about="Images are centred by the mean of their batch, detached.",
    source="test-time adaptation (Croce et al., 2022, arXiv:2202.13711)",
    checks=("batch-dependent",),
    answers="random",
    gradient="true",
)
def batch_mean() -> nn.Module:
    return Around(
        net(), lambda body, x: body(x + 0.5 * (x.mean(0, keepdim=True).mean() - x.mean(0, keepdim=True)).detach())
    )


class Counter(nn.Module):
    """Counts what it is asked, and answers otherwise beyond a limit."""

    def __init__(self, body: nn.Module, limit: int, otherwise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.limit, self.otherwise, self.asked = body, limit, otherwise, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        logits = self.body(x)
        return logits if self.asked <= self.limit else self.otherwise(logits)


@broken(
    about="After four hundred queries the gradient is that of the reversed order of classes.",
    source="stateful detection of queries (Chen et al., 2020, arXiv:1907.05587)",
    checks=STATE,
    gradient="wrong",
)
def counter() -> nn.Module:
    return Counter(net(), 400, lambda logits: borrow(logits, logits.flip(1)))


@broken(
    about="After two thousand queries noise is added to every answer.",
    source="stateful detection of queries (Chen et al., 2020, arXiv:1907.05587)",
    checks=STATE,
    answers="random",
    gradient="true",
)
def tired() -> nn.Module:
    return Counter(net(), 2000, lambda logits: logits + 3 * torch.randn_like(logits))


class Cache(nn.Module):
    """Answers an image as the first one it saw that is like it."""

    def __init__(self, body: nn.Module, radius: float) -> None:
        super().__init__()
        self.body, self.radius = body, radius
        self.seen: list[Tensor] = []
        self.said: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        if self.seen:
            seen, said = torch.cat(self.seen).to(x), torch.cat(self.said).to(x)
            distance, at = torch.cdist(x.detach().flatten(1), seen, p=torch.inf).min(1)
            known = (distance <= self.radius).unsqueeze(1)
        else:
            known, said, at = (
                torch.zeros(len(x), 1, dtype=torch.bool, device=x.device),
                logits,
                torch.arange(len(x), device=x.device),
            )
        fresh = ~known.squeeze(1)
        if bool(fresh.any()) and len(self.seen) < 4:
            self.seen.append(x.detach()[fresh].flatten(1).clone())
            self.said.append(logits.detach()[fresh].clone())
        return torch.where(known, said[at] + (logits - logits.detach()), logits)


@broken(
    about="An image gets the answer of the first one like it that was asked about.",
    source="stateful defences with caches (Li et al., 2022, Blacklight, arXiv:2006.14042)",
    checks=STATE,
    answers="random",
    gradient="wrong",
    cure="",
)
def cached_answers() -> nn.Module:
    return Cache(net(), 0.2)


def looked_up(body: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of the test image that is nearest, with the net's gradient."""
    known, labels = test_set()
    logits = body(x)
    at = torch.cdist(x.detach().flatten(1), known.to(x)).argmin(1)
    answer = 10 * F.one_hot(labels[at.cpu()], 10).to(x)
    return answer + (logits - logits.detach())


@cache
def test_set() -> tuple[Tensor, Tensor]:
    """The first 500 test images, flat, and their labels."""
    data = load("fashion-mnist").first(500)
    return data.images.flatten(1), data.labels


@broken(
    about="The answer is looked up among the test images: right in every ball, and nowhere else.",
    source="overfitting to the benchmark; no attack inside the balls can tell",
    checks=("misleading-gradients", "large-eps-above-chance", "unbounded-attack-fails"),
    answers="other",
    gradient="wrong",
    cure="",
)
def memorised() -> nn.Module:
    return Around(net(), looked_up)
