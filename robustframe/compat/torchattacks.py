"""The calls of torchattacks 3.5.1 (Kim, 2020, arXiv:2010.01950): names and defaults are theirs, the attacks are ours.

Each name gives an attack that is called with images and labels and gives adversarial images, exactly inside ball and
box. An example ends at its first misclassification (with CW and DeepFool, the nearest counts), and one that is wrong
anyway stays as it is; of one that withstands, the most promising image is given. The model, its mode and all random
states come back as they were.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from robustframe.attacks.base import Runs
from robustframe.attacks.direct import attack
from robustframe.attacks.pgd import PGD as RandomStartPGD
from robustframe.attacks.registry import make_attack
from robustframe.calls import DEFAULT_BATCH, borrowed, call_in_batches, device_of, predict
from robustframe.compat.shared import as_module, length_of, threat_of
from robustframe.data import Dataset, from_arrays
from robustframe.draws import Draws
from robustframe.errors import InputError, whole_number
from robustframe.losses import find_loss
from robustframe.models.adapters import Normalised
from robustframe.probe import Probe
from robustframe.targets import best_other, choose_targets
from robustframe.threat import ThreatModel, parse_eps
from robustframe.types import Images, Labels, Logits, Verdicts

_REFUSED = {
    "set_model_training_mode": "models are attacked in evaluation mode; leave the line out",
    "save": "call the attack on each batch and keep what it gives: torch.save(attack(images, labels), path)",
    "load": "keep images with torch.save(attack(images, labels), path) and read them with torch.load(path)",
}


Aim = Callable[[Images, Labels, Logits], Labels]
"""Chooses targets from clean images, labels and the logits of the images."""


class PeerAttack:
    """One attack on one model, called as ``attack(images, labels)``.

    Args:
        name: what torchattacks calls it.
        model: maps images to logits; a module, or a function.
        use: our attack, by its name in `robustframe.attacks.ATTACKS`.
        settings: of our attack.
        norm: ``"Linf"``, ``"L2"`` or ``"L1"``.
        eps: radius in input units, or its text, such as ``"8/255"``; ``None`` for an attack that looks for the nearest
            point in L2, wherever it is.
        seed: of its random numbers; each call draws the same.
    """

    __slots__ = ("_aim", "_ball", "_ours", "attack", "attack_mode", "model", "normalization_used", "seed")

    supported_mode: Sequence[str] = ("default", "targeted")

    def __init__(
        self,
        name: str,
        model: Any,
        use: str | type[RandomStartPGD],
        settings: Mapping[str, object],
        *,
        norm: str = "Linf",
        eps: float | str | None = None,
        seed: int = 0,
    ) -> None:
        self.attack, self.model, self.seed = name, as_module(model), seed
        self._ball = None if eps is None else threat_of(norm, eps)
        if isinstance(use, str):
            self._ours = make_attack(use, settings)
        else:
            # Checked as ours is, and then made to start elsewhere.
            checked = make_attack("pgd", settings)
            self._ours = use(**{each: getattr(checked, each) for each in settings})
        self.normalization_used: dict[str, list[float]] | None = None
        self.set_mode_default()

    def __call__(self, inputs: Images, labels: Labels) -> Images:
        """Attack a batch.

        Args:
            inputs: images in [0, 1], or normalised ones after `set_normalization_used`, shape (n, ...).
            labels: class numbers, shape (n,); after `set_mode_targeted_by_label` the targets.

        Returns:
            For each image the one that the model misclassifies, in a targeted mode takes for its target, or the most
            promising one found, shape (n, ...); on the model's device.

        Raises:
            InputError: for images outside [0, 1], or labels out of range.
        """
        return self.attacked(inputs, labels)[0]

    def attacked(self, inputs: Images, labels: Labels) -> tuple[Images, Verdicts]:
        """Attack a batch; return the images as the model takes them, and which of them it gets wrong."""
        model = self.model
        if self.normalization_used is not None:
            mean, std = self.normalization_used["mean"], self.normalization_used["std"]
            model = Normalised(model, mean, std).to(device_of(model))
            offset, scale = (torch.tensor(each, device=inputs.device)[:, None, None] for each in (mean, std))
            inputs = inputs * scale + offset
        data = from_arrays(inputs, labels)
        if self._ball is None or self._aim is not None:
            images, success = self._searched(model, data)
        else:
            found = attack(model, data.images, data.labels, self._ours, self._ball, seed=self.seed)
            images, success = found.images, found.success
        if isinstance(model, Normalised):
            images = (images - model.get_buffer("mean")) / model.get_buffer("std")
        return images, success

    def _searched(self, model: nn.Module, data: Dataset) -> tuple[Images, Verdicts]:
        """Search for targets, or on after a success for the nearest one in the whole box."""
        wide = ThreatModel(norm="l2", eps=math.sqrt(data.images[0].numel()))
        device = device_of(model)
        x, y, targets = data.images.to(device), data.labels.to(device), None
        if self._aim is not None:
            with borrowed(model) as lent, torch.no_grad():
                logits = call_in_batches(lent, x, DEFAULT_BATCH)
            targets = self._aim(x, y, logits)
            if self.attack_mode == "targeted(label)":
                # Nobody says what the images are; whatever they are taken for is to change, unless it is the target.
                y = torch.where(predict(logits) == targets, best_other(logits, targets), predict(logits))
        draws = Draws((self.seed, self.attack), len(data), device=device)
        found = self._ours.run(
            model, x, y, self._ball or wide, draws, closest=self._ball is None, targets=targets, gallery=(x, y)
        )
        return found.adversarial, found.success

    def set_normalization_used(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Say that the model takes normalised images, and is given them here too.

        Args:
            mean: that was taken off, of each channel.
            std: by which it was divided then.
        """
        self.normalization_used = {"mean": [float(each) for each in mean], "std": [float(each) for each in std]}

    @property
    def device(self) -> torch.device:
        """Where the model is, and the images that it gives."""
        return device_of(self.model)

    def set_mode_default(self) -> None:
        """Aim at any wrong class."""
        self._aim: Aim | None = None
        self.attack_mode = "default"

    def set_mode_targeted_by_label(self, quiet: bool = False) -> None:
        """Aim at the labels that the attack is called with."""
        del quiet
        self._aim, self.attack_mode = lambda x, y, logits: y, "targeted(label)"

    def set_mode_targeted_by_function(
        self, target_map_function: Callable[[Images, Labels], Labels], quiet: bool = False
    ) -> None:
        """Aim at what a function of images in [0, 1] and labels gives, shape (n,)."""
        del quiet
        self._aim, self.attack_mode = lambda x, y, logits: target_map_function(x, y), "targeted(custom)"

    def set_mode_targeted_random(self, quiet: bool = False) -> None:
        """Aim at a wrong class drawn for each image, the same in every call."""
        del quiet
        self._aim = lambda x, y, logits: choose_targets(f"random-{self.seed}", x, y, logits)
        self.attack_mode = "targeted(random)"

    def set_mode_targeted_least_likely(self, kth_min: int = 1, quiet: bool = False) -> None:
        """Aim at the wrong class with the smallest logit, or with ``kth_min`` 2 the one before it, and so on."""
        del quiet
        whole_number(kth_min, "kth_min", least=1)
        self._aim = lambda x, y, logits: _least_likely(kth_min, y, logits)
        self.attack_mode = "targeted(least-likely)"

    @property
    def targeted(self) -> bool:
        """Whether it aims at a class."""
        return self._aim is not None

    def get_mode(self) -> str:
        """Return the mode: ``"default"``, or ``"targeted(...)"`` with what chooses the targets."""
        return self.attack_mode

    def __getattr__(self, name: str) -> Any:
        if name in _REFUSED:
            raise InputError(f"{name} of torchattacks is not here: {_REFUSED[name]}")
        raise AttributeError(f"{self.attack} has no attribute {name!r}; its settings are fixed when it is made")

    def __repr__(self) -> str:
        ball = "" if self._ball is None else f", {self._ball.label}"
        return f"{self.attack}({self._ours!r}{ball})"


class MultiAttack:
    """Several attacks in order, each of which meets what those before it left.

    Args:
        attacks: on one model.
        verbose: of no meaning here; the images say what was broken.
    """

    def __init__(self, attacks: Sequence[PeerAttack], verbose: bool = False) -> None:
        if not attacks or len({id(each.model) for each in attacks}) > 1:
            raise InputError("MultiAttack takes one attack or more, all on the same model")
        self.attacks, self.verbose = list(attacks), verbose

    def __call__(self, images: Images, labels: Labels) -> Images:
        """Attack a batch; return an image for each, as one attack does.

        Args:
            images: as the attacks take them, shape (n, ...).
            labels: class numbers, shape (n,).
        """
        found, success = self.attacks[0].attacked(images, labels)
        left = (~success).nonzero().squeeze(1)
        for each in self.attacks[1:]:
            if not len(left):
                break
            rows = left.to(images.device)
            again, success = each.attacked(images[rows], labels[left.to(labels.device)])
            found[left[success]] = again[success]
            left = left[~success]
        return found


class ImageStartPGD(RandomStartPGD):
    """`robustframe.attacks.PGD` from the image itself (BIM; Kurakin et al., 2017, arXiv:1607.02533)."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> None:
        del draws
        self._climb(Runs(probe, torch.arange(len(x), device=x.device), find_loss(self.loss)), x, threat)


def _least_likely(kth: int, labels: Labels, logits: Logits) -> Labels:
    if kth > logits.shape[1] - 1:
        raise InputError(f"kth_min = {kth} of {logits.shape[1] - 1} wrong classes; give a smaller one")
    return logits.scatter(1, labels.unsqueeze(1), torch.inf).argsort(dim=1, stable=True)[:, kth - 1]


def _step(alpha: float | str, eps: float | str) -> float:
    """The length of a step as a fraction of the radius."""
    return length_of(alpha) / parse_eps(eps)


def FGSM(model: Any, eps: float | str = 8 / 255) -> PeerAttack:
    """One step of length eps (`robustframe.attacks.FGSM`), in Linf."""
    return PeerAttack("FGSM", model, "fgsm", {}, eps=eps)


def BIM(model: Any, eps: float | str = 8 / 255, alpha: float | str = 2 / 255, steps: int = 10) -> PeerAttack:
    """Steps of length alpha from the image itself, in Linf."""
    settings = {"steps": steps, "step_size": _step(alpha, eps)}
    return PeerAttack("BIM", model, ImageStartPGD, settings, eps=eps)


def PGD(
    model: Any, eps: float | str = 8 / 255, alpha: float | str = 2 / 255, steps: int = 10, random_start: bool = True
) -> PeerAttack:
    """Steps of length alpha from a random start (`robustframe.attacks.PGD`), in Linf."""
    settings = {"steps": steps, "step_size": _step(alpha, eps)}
    return PeerAttack("PGD", model, "pgd" if random_start else ImageStartPGD, settings, eps=eps)


def EOTPGD(
    model: Any,
    eps: float | str = 8 / 255,
    alpha: float | str = 2 / 255,
    steps: int = 10,
    eot_iter: int = 2,
    random_start: bool = True,
) -> PeerAttack:
    """`PGD` along gradients averaged over draws of a model that is random."""
    settings = {"steps": steps, "step_size": _step(alpha, eps), "eot": eot_iter}
    return PeerAttack("EOTPGD", model, "pgd" if random_start else ImageStartPGD, settings, eps=eps)


def PGDL2(
    model: Any,
    eps: float | str = 1.0,
    alpha: float | str = 0.2,
    steps: int = 10,
    random_start: bool = True,
    eps_for_division: float = 1e-10,
) -> PeerAttack:
    """`PGD` in L2; nothing is divided by zero here, so that ``eps_for_division`` has no meaning."""
    del eps_for_division
    settings = {"steps": steps, "step_size": _step(alpha, eps)}
    return PeerAttack("PGDL2", model, "pgd" if random_start else ImageStartPGD, settings, norm="L2", eps=eps)


def APGD(
    model: Any,
    norm: str = "Linf",
    eps: float | str = 8 / 255,
    steps: int = 10,
    n_restarts: int = 1,
    seed: int = 0,
    loss: str = "ce",
    eot_iter: int = 1,
    rho: float = 0.75,
    verbose: bool = False,
) -> PeerAttack:
    """Auto-PGD (`robustframe.attacks.APGD`) on the loss ``"ce"`` or ``"dlr"``; verbose prints nothing."""
    del verbose
    settings = {"steps": steps, "restarts": n_restarts, "loss": _loss(loss), "eot": eot_iter, "rho": rho}
    return PeerAttack("APGD", model, "apgd", settings, norm=norm, eps=eps, seed=seed)


def APGDT(
    model: Any,
    norm: str = "Linf",
    eps: float | str = 8 / 255,
    steps: int = 10,
    n_restarts: int = 1,
    seed: int = 0,
    eot_iter: int = 1,
    rho: float = 0.75,
    verbose: bool = False,
    n_classes: int = 10,
) -> PeerAttack:
    """Auto-PGD at each wrong class in turn (`robustframe.attacks.APGDT`); verbose prints nothing."""
    del verbose
    settings = {"targets": n_classes - 1, "steps": steps, "restarts": n_restarts, "eot": eot_iter, "rho": rho}
    return PeerAttack("APGDT", model, "apgd-t", settings, norm=norm, eps=eps, seed=seed)


def FAB(
    model: Any,
    norm: str = "Linf",
    eps: float | str = 8 / 255,
    steps: int = 10,
    n_restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    verbose: bool = False,
    seed: int = 0,
    multi_targeted: bool = False,
    n_classes: int = 10,
) -> PeerAttack:
    """The fast adaptive boundary attack (`robustframe.attacks.FAB` and `FABT`); verbose prints nothing."""
    del verbose
    settings = {
        "steps": steps, "restarts": n_restarts, "targets": n_classes - 1,
        "alpha_max": alpha_max, "eta": eta, "beta": beta,
    }  # fmt: skip
    use = "fab-t" if multi_targeted else "fab"
    return PeerAttack("FAB", model, use, settings, norm=norm, eps=eps, seed=seed)


def Square(
    model: Any,
    norm: str = "Linf",
    eps: float | str = 8 / 255,
    n_queries: int = 5000,
    n_restarts: int = 1,
    p_init: float = 0.8,
    loss: str = "margin",
    resc_schedule: bool = True,
    seed: int = 0,
    verbose: bool = False,
) -> PeerAttack:
    """Random search by squares (`robustframe.attacks.Square`), on the margin; verbose prints nothing.

    Raises:
        InputError: for another loss than ``"margin"``.
    """
    del verbose
    if loss != "margin":
        raise InputError(f"Square climbs the margin here, not {loss!r}; leave loss out")
    settings = {"queries": n_queries, "restarts": n_restarts, "p_init": p_init, "resc_schedule": resc_schedule}
    return PeerAttack("Square", model, "square", settings, norm=norm, eps=eps, seed=seed)


def CW(model: Any, c: float = 1, kappa: float = 0, steps: int = 50, lr: float = 0.01) -> PeerAttack:
    """Carlini and Wagner's L2 attack (`robustframe.attacks.CW`): four descents, of which the first has the weight c."""
    settings = {
        "searches": 4, "initial_weight": float(c), "confidence": float(kappa), "steps": steps, "learning_rate": lr,
    }  # fmt: skip
    return PeerAttack("CW", model, "cw", settings)


def DeepFool(model: Any, steps: int = 50, overshoot: float = 0.02) -> PeerAttack:
    """To the nearest linearised boundary of the nine strongest rivals, in L2 (`robustframe.attacks.DeepFool`)."""
    return PeerAttack("DeepFool", model, "deepfool", {"steps": steps, "overshoot": overshoot})


def SPSA(
    model: Any,
    eps: float | str = 0.3,
    delta: float = 0.01,
    lr: float = 0.01,
    nb_iter: int = 1,
    nb_sample: int = 128,
    max_batch_size: int = 64,
) -> PeerAttack:
    """Ascent on estimated slopes, in Linf (`robustframe.attacks.SPSA`); ``max_batch_size`` changes no image."""
    del max_batch_size
    settings = {"steps": nb_iter, "step_size": _step(lr, eps), "samples": nb_sample, "distance": delta}
    return PeerAttack("SPSA", model, "spsa", settings, eps=eps)


def _loss(theirs: str) -> str:
    if theirs not in ("ce", "dlr"):
        raise InputError(f"APGD climbs the loss 'ce' or 'dlr', not {theirs!r}")
    return {"ce": "cross_entropy", "dlr": "dlr"}[theirs]
