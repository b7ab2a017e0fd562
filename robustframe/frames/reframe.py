"""The frame that an ordinary network is one sweep of."""

import math

import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames.affine import Term, Traced
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import taps
from robustframe.frames.branches import Branch, BranchSpec, as_image


def spec_of(term: Term) -> BranchSpec:
    """Return the branch that a term of a code is."""
    each = term.map
    return BranchSpec(
        reads=term.source, weight=tuple(each.weight.shape), stride=each.stride, padding=each.padding,
        groups=each.groups, box=each.box, first=term.first, group=term.branch, pick=term.pick,
    )  # fmt: skip


def structure_of(traced: Traced) -> BranchedFrame:
    """Return the frame of a network with weights of ones, but where they are zero by structure: its rows and branches.

    Raises:
        InputError: for a network without a ReLU, or a layer that depends on nothing.
    """
    if not traced.codes:
        found = "; ".join(f"{each.name}: {each.why}" for each in traced.unread[:3])
        raise InputError(f"the model has no layer with a ReLU behind it, so no frame ({found or 'it is linear'})")
    # A flattened image may go through a ReLU, and is an image all the same.
    values = [code.value for code in traced.codes]
    shapes = [each.shape[:1] if each.flat and each.shape[1:] == (1, 1) else each.shape for each in values]
    rows = [[spec_of(term) for term in code.value.terms] for code in traced.codes]
    for j, specs in enumerate(rows, start=1):
        if not specs:
            raise InputError(f"layer {j} ({traced.codes[j - 1].name}) depends on nothing; it has no weights but zeros")
    per_pixel = [code.value.constant.shape[1:] != (1, 1) for code in traced.codes]
    frame = BranchedFrame(traced.in_shape, shapes, rows, traced.opaque, per_pixel=per_pixel)
    with torch.no_grad():
        for j, code in enumerate(traced.codes, start=1):
            for part, term in zip(frame.branches(j), code.value.terms):
                part.weight.copy_(taps(term.map.weight).expand(part.weight.shape))
    return frame


@torch.no_grad()
def frame_of(traced: Traced) -> tuple[BranchedFrame, list[Tensor]]:
    """Build the frame with unit atoms whose first sweep makes a network's activations.

    A ReLU network may be rescaled channel by channel without changing what it computes. With codes w_j = R_j a_j, R_j
    a positive factor for each channel, row j of the frame is ``1/2 sum_b ||w_k - D_jb w_j||^2`` over its branches b,
    and one proximal step from zero is ReLU(s_j (sum_b D_jb^T w_k - b_j)). It is the network's layer when

        s_j D_jb^T = R_j A_jb R_k^-1   and   s_j b_j = -R_j c_j,

    A_jb the layer's linear maps and c_j its bias. The factors that give every atom (column of D_j, all branches
    together) unit norm are R_j = s_j / ||rows of A_j R^-1||, whatever s_j is, and s_j = 1 / (||D_j||^2 + p_j) with p_j
    branches that read code j. So every network has one such frame, which does not change when its channels are
    rescaled.

    Args:
        traced: the network.

    Returns:
        The frame in float64, and for each code from 1 the factors R_j over their mean m_j: the frame's codes are these
        times the activations.

    Raises:
        InputError: for a network without a ReLU.
    """
    frame = structure_of(traced).double()
    factors: dict[int, Tensor] = {}
    logs: dict[int, float] = {0: 0.0}
    for j, code in enumerate(traced.codes, start=1):
        layer, parts = frame.blocks[j - 1], list(zip(frame.branches(j), code.value.terms))
        logs |= {term.source: 0.0 for _, term in parts if term.source < 0}
        # Everything relative to the smallest of the scales that are read: its branch has the largest numbers.
        least = min(logs[term.source] for _, term in parts)
        for branch, term in parts:
            branch.weight.copy_(_unscaled(term, factors) * math.exp(least - logs[term.source]))
        norms = frame.norms(j)
        # Below that squares of scales, over some layers, are beyond what single precision holds.
        alive = norms > 1e-21 * norms.max()
        if not bool(alive.any()):
            raise InputError(f"layer {j} ({code.name}) has no weights but zeros, so its atoms have no direction")
        # A channel that reads nothing has an atom of zeros, and any factor does.
        norms = torch.where(alive, norms, norms[alive].log().mean().exp())
        for branch, _ in parts:
            branch.weight.div_(norms[branch.spec.first : branch.spec.end].view(-1, 1, 1, 1))
        size = 1 / (frame.squared_norm(j) + frame.pull(j))
        mean = float(norms.log().mean())
        logs[j] = math.log(size) + least - mean
        factors[j] = (mean - norms.log()).exp()
        for branch, term in parts:
            apart = logs[j] - logs[term.source]
            # Beside codes of its own size the smallest are nothing, and their branch pulls at nothing.
            branch.ratio.fill_(math.exp(max(2 * apart, -600.0)))
            branch.weight.mul_(math.exp(-apart))
        layer.step_size.fill_(size)
        threshold = -code.value.constant * factors[j].view(-1, 1, 1) / size
        layer.threshold.copy_(threshold.view_as(layer.threshold))
        frame.log_scales[j] = logs[j]
    return frame, [factors[j] for j in range(1, len(traced.codes) + 1)]


def _unscaled(term: Term, factors: dict[int, Tensor]) -> Tensor:
    """A R_k^-1, up to the mean of R_k: each input channel divided by its factor."""
    weight = term.map.weight
    if term.source not in factors:
        return weight
    groups, per = term.map.groups, weight.shape[1]
    inverse = (1 / factors[term.source]).view(groups, 1, per).expand(-1, weight.shape[0] // groups, -1)
    return weight * inverse.reshape(weight.shape[0], per, 1, 1)


class Head(nn.Module):
    """What comes after the last code: an affine map to logits.

    Args:
        branch: its linear map.
        bias: shape (classes,).

    Raises:
        InputError: where the map makes something else than as many logits.
    """

    def __init__(self, branch: Branch, bias: Tensor) -> None:
        super().__init__()
        if (branch.spec.weight[0], *branch.out) != (len(bias), 1, 1):
            raise InputError(f"a head that makes {(branch.spec.weight[0], *branch.out)} makes no {len(bias)} logits")
        self.branch = branch
        self.bias = nn.Parameter(bias)
        self.out_features = branch.spec.weight[0]

    def forward(self, code: Tensor) -> Tensor:
        """Return logits (b, classes) of codes of the last layer."""
        return self.branch.analysis(as_image(code), None).flatten(1) + self.bias


def head_of(traced: Traced, factors: list[Tensor]) -> Head:
    """Build the head of a network on the codes of its frame.

    Raises:
        InputError: where logits come from what is no frame, or from more than the last code.
    """
    out, last = traced.out, len(traced.codes)
    if out is None:
        found = "; ".join(f"{each.name}: {each.why}" for each in traced.unread[:3])
        raise InputError(f"the model is no sweep of a frame, so it has no recurrent twin: {found}")
    if not out.flat:
        raise InputError("the model returns images, where logits are vectors; flatten them")
    if [term.source for term in out.terms] != [last] or out.shape[1:] != (1, 1):
        raise InputError("the logits are no linear map of the last code alone, so there is no twin to be built")
    term = out.terms[0]
    code = traced.codes[-1].value
    branch = Branch(spec_of(term), code.shape).double()
    with torch.no_grad():
        branch.weight.copy_(_unscaled(term, {last: factors[-1]}))
    return Head(branch, out.constant.flatten())
