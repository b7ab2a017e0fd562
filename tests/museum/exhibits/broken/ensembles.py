"""Several nets answer together, and one of them hides."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.nets import Around, linear, net, other, sibling
from exhibits.pieces import MASKED, WRONG, broken

ENSEMBLES = "ensembles of weak defences (He et al., 2017, arXiv:1706.04701)"


@broken(
    about="Two nets are averaged, and the gradient of one is missing.", source=ENSEMBLES, checks=WRONG, answers="other"
)
def masked_member() -> nn.Module:
    return Around(net(), linear(), lambda body, shown, x: (3 * body(x).detach() + shown(x)) / 2)


@broken(
    about="Of three nets the loudest member has its image rounded.",
    source=ENSEMBLES,
    checks=WRONG,
    answers="other",
    gradient="true",
)
def rounded_member() -> nn.Module:
    def run(loudest: nn.Module, second: nn.Module, third: nn.Module, x: Tensor) -> Tensor:
        return 4 * loudest((8 * x).round() / 8) + second(x) + third(x) / 2

    return Around(net(), other(), sibling(), run)


@broken(
    about="Three nets vote, and votes have no derivative.",
    source=ENSEMBLES,
    checks=("not-logits", *MASKED),
    answers="other",
    gradient="none",
)
def majority() -> nn.Module:
    def run(*members_and_images: Any) -> Tensor:
        *members, x = members_and_images
        votes = [F.one_hot(member(x).argmax(1), 10) for member in members]
        first = F.one_hot(members[0](x).argmax(1), 10)
        return (torch.stack(votes).sum(0) + 0.5 * first).to(x)

    return Around(net(), other(), sibling(), run)


@broken(
    about="Three nets vote, and the gradient is that of the third alone.",
    source=ENSEMBLES,
    checks=WRONG,
    answers="other",
)
def majority_of_one() -> nn.Module:
    def run(*members_and_images: Any) -> Tensor:
        *members, x = members_and_images
        all_said = [member(x) for member in members]
        votes = torch.stack([F.one_hot(said.argmax(1), 10) for said in all_said]).sum(0).to(x)
        smallest = 0.01 * sum(all_said).detach()
        return votes + smallest + 0.1 * (all_said[2] - all_said[2].detach())

    return Around(net(), other(), sibling(), run)


def average() -> nn.Module:
    """The three members without the rule of who answers."""

    def run(*members_and_images: Any) -> Tensor:
        *members, x = members_and_images
        return torch.stack([member(x).softmax(1) for member in members]).mean(0).clamp_min(1e-12).log()

    return Around(net(), other(), sibling(), run)


@broken(
    about="The member that is surest answers alone, and its scale hides the gradient from the cross-entropy.",
    source=ENSEMBLES,
    checks=("not-logits", *MASKED),
    answers="other",
    gradient="true",
    undefended=average,
    cure="",
)
def surest_member() -> nn.Module:
    def run(*members_and_images: Any) -> Tensor:
        *members, x = members_and_images
        said = torch.stack([member(x) for member in members])
        sure = said.softmax(2).amax(2).argmax(0)
        return 300 * said[sure, torch.arange(len(x), device=x.device)]

    return Around(net(), other(), sibling(), run)
