"""Parts of the gradient are cut off, or all of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.backward import Bent, borrow
from exhibits.nets import Around, Front, Step, dense, fit, net, trained
from exhibits.pieces import MASKED, WRONG, broken

BPDA = "obfuscated gradients (Athalye et al., 2018, arXiv:1802.00420)"


@broken(
    about="A step goes through other numbers than tensors.",
    source=BPDA,
    checks=MASKED,
    gradient="none",
    cure="bpda.toml",
)
def detached() -> nn.Module:
    return Front(Step(lambda x: torch.from_numpy(x.detach().cpu().numpy().copy()).to(x.device)), net())


@broken(
    about="The whole forward pass runs without recording gradients.",
    source="inference wrappers (`torch.no_grad`)",
    checks=MASKED,
    gradient="none",
)
def no_grad() -> nn.Module:
    def silent(body: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            return body(x)

    return Around(net(), silent)


class TwoStreams(nn.Module):
    """A net that adds the logits of the image and of a coarse copy; the fine stream can be cut off."""

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.fine, self.coarse, self.cut = dense(64, 64), nn.Linear(49, 10), cut

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x.detach() if self.cut else x)
        return fine + self.coarse(F.avg_pool2d(x, 4).flatten(1))


@trained
def streams() -> nn.Module:
    return fit(TwoStreams, epochs=4)


@broken(
    about="Of two streams the fine one is detached; the gradient is that of the coarse one alone.",
    source="detached branches of self-supervised and two-stream nets",
    checks=WRONG,
    undefended=streams,
)
def detached_branch() -> nn.Module:
    cut = TwoStreams(cut=True)
    cut.load_state_dict(streams().state_dict())
    return cut.eval().requires_grad_(False)


class Gated(nn.Module):
    """A net whose hidden units are multiplied by gates; the units can be cut off, so that gates alone differentiate."""

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.units, self.gates, self.head, self.cut = nn.Linear(784, 64), nn.Linear(784, 64), nn.Linear(64, 10), cut

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        units = self.units(x.detach() if self.cut else x)
        return self.head(units * self.gates(x).sigmoid())


@trained
def gated() -> nn.Module:
    return fit(Gated, epochs=4)


@broken(
    about="Hidden units are detached, and the gradient is that of their gates alone.",
    source="attention maps detached from what they weight",
    checks=WRONG,
    undefended=gated,
)
def detached_units() -> nn.Module:
    cut = Gated(cut=True)
    cut.load_state_dict(gated().state_dict())
    return cut.eval().requires_grad_(False)


@broken(about="The gradient of every other pixel is dropped.", source=BPDA, checks=WRONG)
def dropped_pixels() -> nn.Module:
    rows = torch.arange(28)
    board = ((rows[:, None] + rows) % 2).float()
    return Bent(net(), lambda slope: slope * board.to(slope))


@broken(
    about="Only the middle of the image, 10 x 10 pixels, has a gradient.",
    source="a crop that is detached",
    checks=WRONG,
)
def dropped_border() -> nn.Module:
    return Bent(net(), lambda slope: F.pad(slope[..., 9:19, 9:19], (9, 9, 9, 9)))


@broken(
    about="Fifteen of sixteen hidden units of the first layer are detached.",
    source="frozen and detached features",
    checks=WRONG,
)
def dropped_units() -> nn.Module:
    def drop(body: nn.Module, x: Tensor) -> Tensor:
        first, rest = body[:2], body[2:]
        hidden = first(x)
        kept = (torch.arange(hidden.shape[1], device=x.device) % 16 == 0).to(x)
        return rest(borrow(hidden, hidden * kept))

    return Around(net(), drop)


@broken(about="The two largest logits are detached, and only the others differentiate.", source=BPDA, checks=WRONG)
def dropped_logits() -> nn.Module:
    def drop(body: nn.Module, x: Tensor) -> Tensor:
        logits = body(x)
        largest = torch.zeros_like(logits).scatter(1, logits.topk(2, 1).indices, 1.0)
        return borrow(logits, logits * (1 - largest))

    return Around(net(), drop)
