"""The other side of a robust accuracy: how many examples no attack whatever can break."""

import torch

from robustframe.certify import Smoothed, lipschitz_radius, smoothed_radius
from robustframe.data import Dataset
from robustframe.models.classifiers import Classifier
from robustframe.pairs import ReframedPair, Twin
from robustframe.solvers import DeepPursuit
from robustframe.spaces import Motion
from robustframe.threat import ThreatModel
from robustframe.types import PerExample

_AT_ONCE = 1000
"""Images certified together."""


def certified_radii(classifier: Classifier, data: Dataset, device: torch.device) -> PerExample | None:
    """Prove an l2 radius for each example in which the classifier cannot change its mind.

    Args:
        classifier: a twin of a pair, or a smoothed classifier; of nothing else is a certificate known.
        data: the examples.
        device: where the classifier is.

    Returns:
        Radii in input units, float64, shape (n,), 0 where the image is misclassified or nothing could be proved;
        ``None`` where there is no certificate for this classifier.
    """
    module = classifier.module
    if isinstance(module, Smoothed):
        return smoothed_radius(module, data.images.to(device), data.labels).radius
    if not isinstance(module, Twin) or not isinstance(module.solver, DeepPursuit):
        return None
    if isinstance(module.pair, ReframedPair):
        return None
    parts = [slice(at, at + _AT_ONCE) for at in range(0, len(data), _AT_ONCE)]
    images, labels = data.images.to(device), data.labels.to(device)
    return torch.cat([lipschitz_radius(module, images[part], labels[part]).radius for part in parts])


def certified_correct(radii: PerExample | None, threat: ThreatModel, numbers: int) -> int | None:
    """Count the examples whose radius holds the whole ball of a threat.

    Args:
        radii: see `certified_radii`.
        threat: a ball; those in l1 and l2 lie in the l2 ball of the same radius, one in linf in sqrt(numbers) times it.
        numbers: pixels of one image, channels counted apart.

    Returns:
        The count, a lower bound on robust examples; ``None`` where there is no certificate, as in l0 and of motions.
    """
    if radii is None or threat.norm == "l0" or isinstance(threat.space, Motion):
        return None
    reach = threat.eps * (numbers**0.5 if threat.norm == "linf" else 1.0)
    return int((radii > reach).sum())
