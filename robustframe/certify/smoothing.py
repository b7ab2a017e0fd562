"""Randomised smoothing: a certificate for any model, of the class that most noisy copies of an image are given."""

import hashlib
import math
from collections.abc import Iterator

import torch
from scipy.stats import beta, norm
from torch import Tensor, nn

from robustframe.calls import DEFAULT_BATCH, answer, borrowed, call_in_batches, predict
from robustframe.certify.certificate import Certificate
from robustframe.errors import InputError, whole_number
from robustframe.types import Images, Labels

_SELECTION = 100
"""Noisy copies that choose the class; others prove it."""


class Smoothed(nn.Module):
    """The classifier that answers with the class that a model gives to most noisy copies of an image.

    Sources: Cohen et al., 2019, arXiv:1902.02918; Salman et al., 2019, arXiv:1906.04584, for gradients through the mean
    of the softmax. Its logits are logarithms of the shares of a few copies, drawn anew in every call, so it is a random
    model: attack it with `rand@1`, which votes. What is certified is the class of infinitely many copies.

    Args:
        model: maps images to logits.
        sigma: standard deviation of the Gaussian noise, in input units; noisy copies are not clipped.
        draws: copies of each image in one call.
        samples: copies of each image that a certificate counts.
        alpha: probability that a certificate is wrong, for each image.

    Raises:
        InputError: for numbers that mean nothing.
    """

    def __init__(
        self, model: nn.Module, sigma: float, *, draws: int = 16, samples: int = 1000, alpha: float = 0.001
    ) -> None:
        super().__init__()
        if not 0 < sigma < math.inf:
            raise InputError(f"sigma {sigma!r} of the noise must be above 0, in input units, such as 0.25")
        if not 0 < alpha < 1:
            raise InputError(
                f"alpha {alpha!r} is the probability of a wrong certificate, between 0 and 1, such as 0.001"
            )
        whole_number(draws, "draws", least=1)
        whole_number(samples, "samples", least=1)
        self.model, self.sigma, self.draws, self.samples, self.alpha = model, sigma, draws, samples, alpha

    def forward(self, x: Tensor) -> Tensor:
        copies = x.repeat_interleave(self.draws, 0)
        logits: Tensor = answer(self.model, copies + self.sigma * torch.randn_like(copies))
        soft = logits.softmax(1).nan_to_num(0)
        # A copy that is given no class has no vote.
        hard = nn.functional.one_hot(predict(logits) + 1, logits.shape[1] + 1)[:, 1:].to(soft)
        # Votes decide, and the mean of the softmax says where they can be had.
        votes = (hard + soft - soft.detach()).view(len(x), self.draws, -1).sum(1)
        # One more vote, for all classes alike, so that none is impossible.
        return ((votes + 1 / votes.shape[1]) / (self.draws + 1)).log()


def smoothed_radius(model: Smoothed, x: Images, y: Labels, *, batch_size: int = DEFAULT_BATCH) -> Certificate:
    """Prove radii inside which the smoothed classifier answers as on the image itself (Cohen et al., 2019, CERTIFY).

    A hundred copies choose a class; of ``model.samples`` others those of that class are counted, and the exact binomial
    bound (Clopper and Pearson, 1934) on its probability p gives the radius sigma * Phi^-1(p). Each image has noise that
    belongs to its pixels, so that nothing depends on which others there are.

    Args:
        model: the smoothed classifier.
        x: images, shape (n, ...).
        y: labels, shape (n,).
        batch_size: noisy copies of one call.

    Returns:
        l2 radii, each wrong with probability ``model.alpha`` at most; 0 where another class was chosen, or where no
        class can be shown to have more than half of the copies, which counts as no answer. The margin is the bound on p
        less one half.
    """
    radii, margins, sure = [], [], []
    with borrowed(model.model) as lent, torch.no_grad():
        for image, label in zip(x, y.tolist(), strict=True):
            votes = [
                predict(call_in_batches(lent, copies, batch_size))
                for copies in _copies(image, model.sigma, (_SELECTION, model.samples))
            ]
            counted = torch.cat(votes).cpu()
            chosen = int(counted[:_SELECTION].mode().values)
            least = at_least(int((counted[_SELECTION:] == chosen).sum()), model.samples, model.alpha)
            radii.append(model.sigma * float(norm.ppf(least)) if least > 0.5 and chosen == label else 0.0)
            margins.append(least - 0.5)
            sure.append(least > 0.5)
    return Certificate(
        torch.tensor(radii, dtype=torch.float64),
        torch.tensor(margins, dtype=torch.float64),
        torch.tensor(sure, dtype=torch.bool),
        math.prod(x.shape[1:]),
    )


def at_least(hits: int, trials: int, alpha: float) -> float:
    """Return the probability that some hits show to be no smaller, wrong with probability ``alpha`` at most.

    >>> round(at_least(1000, 1000, 0.001), 4)
    0.9931
    """
    return 0.0 if hits == 0 else float(beta.ppf(alpha, hits, trials - hits + 1))


def _copies(image: Tensor, sigma: float, counts: tuple[int, int]) -> Iterator[Tensor]:
    """Noisy copies of one image, a hundred at a time whatever the batch, by random numbers of its own."""
    content = image.detach().cpu().float().contiguous().numpy().tobytes()
    seed = int.from_bytes(hashlib.sha256(content).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    for count in counts:
        for at in range(0, count, _SELECTION):
            size = min(_SELECTION, count - at)
            noise = torch.randn((size, *image.shape), generator=generator, dtype=torch.float32)
            yield image + sigma * noise.to(image)
