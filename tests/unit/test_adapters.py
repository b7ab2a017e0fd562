"""The defects of torchattacks 3.5.1 that the adapter works around, one by one."""

import pytest
import torch
from torch import nn

from robustframe.attacks import make_attack
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.threat import ThreatModel

pytest.importorskip("torchattacks")
import torchattacks


class Brightness(nn.Module):
    """Two classes by the mean of the image, on any scale and at any level of logits."""

    def __init__(self, level=0.0):
        super().__init__()
        self.level = level

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], 1) * 10 + self.level


def attack(use, settings, model, x, norm, eps, **options):
    threat = ThreatModel(norm=norm, eps=eps)
    y = (x.flatten(1).mean(1) > 0.5).long()
    return make_attack(f"torchattacks:{use}", settings).run(model, x, y, threat, Draws((0,), len(x)), **options)


@pytest.mark.parametrize("level", [0.0, -100.0])
@pytest.mark.parametrize("use", ["CW", "UPGD", "EADL1"])
def test_negative_logits_are_attacked_like_others(use, level):
    settings, norm, eps = {
        "CW": ({"lr": 0.05}, "l2", 1.0),
        "UPGD": ({"loss": "margin"}, "linf", 0.1),
        "EADL1": ({"max_iterations": 20, "initial_const": 1.0, "binary_search_steps": 4}, "l1", 12.0),
    }[use]
    x = torch.full((3, 1, 6, 6), 0.45)
    assert attack(use, settings, Brightness(level), x, norm, eps).success.all()


def test_black_images_can_be_attacked_by_cw():
    class Bright(nn.Module):
        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return torch.stack([0.02 - mean, mean - 0.02], 1) * 10

    x = torch.zeros(2, 1, 6, 6)
    result = attack("CW", {"lr": 0.5, "c": 10}, Bright(), x, "l2", 2.0)
    assert result.success.all()
    assert (result.distance > 0).all()


class Blind(nn.Module):
    """Linear, but with a zero gradient for the first evaluation of every run."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return Brightness()(x.detach() + 0 * x if self.calls <= 2 else x)


@pytest.mark.parametrize("use", ["MIFGSM", "NIFGSM", "UPGD", "DIFGSM", "VMIFGSM", "VNIFGSM", "SINIFGSM"])
def test_a_zero_gradient_does_not_stop_the_momentum_for_good(use):
    x = torch.full((2, 1, 6, 6), 0.45)
    settings = {"steps": 20} | ({"diversity_prob": 0.0} if use == "DIFGSM" else {})
    assert attack(use, settings, Blind(), x, "linf", 0.07).success.all()


def test_the_unguarded_class_would_have_stopped():
    x = torch.full((2, 1, 6, 6), 0.45)
    model = Blind()
    model.calls = 1
    model.eval()
    found = torchattacks.MIFGSM(nn.Sequential(model, nn.Linear(2, 2)), eps=0.07, steps=20)
    found.model[1].weight.data.copy_(torch.eye(2))
    found.model[1].bias.data.zero_()
    assert torch.equal(found(x, torch.zeros(2, dtype=torch.long)), x)


def test_deepfool_that_divides_by_zero_returns_the_clean_image():
    class Flat(nn.Module):
        def forward(self, x):
            self.saw_nan = bool(x.isnan().any())
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2) + 0 * x.flatten(1)[:, :2]

    x = torch.full((2, 1, 6, 6), 0.45)
    model = Flat()
    result = attack("DeepFool", {"steps": 3}, model, x, "l2", 1.0)
    assert torch.equal(result.adversarial, x)
    assert not result.success.any()
    assert not model.saw_nan


@pytest.mark.parametrize(
    ("use", "settings", "shape", "words"),
    [
        (
            "TIFGSM",
            {},
            (1, 8, 8),
            r"cannot attack inputs of shape \(1, 8, 8\) and type torch.float32.*groups=3",
        ),
        ("DIFGSM", {}, (3, 8, 5), r"turns inputs of shape \(3, 8, 5\) into"),
        ("DIFGSM", {"resize_rate": 1.0}, (3, 8, 8), "cannot attack inputs of shape"),
        ("APGDT", {}, (3, 8, 8), "cannot attack inputs .*IndexError"),
    ],
)
def test_a_crash_inside_torchattacks_is_said_with_class_and_shape(use, settings, shape, words):
    with pytest.raises(InputError, match=words) as caught:
        attack(use, settings, Brightness(), torch.full((2, *shape), 0.45), "linf", 0.01)
    assert use in str(caught.value)


def test_an_error_of_the_model_is_not_blamed_on_torchattacks():
    class Broken(Brightness):
        def forward(self, x):
            if x.requires_grad:
                raise RuntimeError("out of memory")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="out of memory") as caught:
        attack("MIFGSM", {}, Broken(), torch.full((2, 1, 6, 6), 0.45), "linf", 0.01)
    assert not isinstance(caught.value, InputError)


def test_another_box_is_refused():
    threat = ThreatModel(norm="linf", eps=0.1, low=-1.0)
    with pytest.raises(InputError, match=r"works on images in \[0, 1\]"):
        make_attack("torchattacks:PGD", {}).run(
            Brightness(), torch.zeros(1, 1, 6, 6), torch.tensor([0]), threat, Draws((0,), 1)
        )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 0.1 / 4), ({"step_size": 0.5}, 0.05), ({"alpha": 0.03}, 0.03)],
)
def test_the_step_is_a_fraction_of_eps_unless_it_is_given_in_input_units(settings, expected, monkeypatch):
    seen = {}
    original = torchattacks.BIM.forward

    def forward(self, images, labels):
        seen.update(alpha=self.alpha, eps=self.eps)
        return original(self, images, labels)

    monkeypatch.setattr(torchattacks.BIM, "forward", forward)
    attack("BIM", settings, Brightness(), torch.full((1, 1, 6, 6), 0.2), "linf", 0.1)
    assert seen["eps"] == 0.1
    assert seen["alpha"] == pytest.approx(expected)


def test_the_search_of_an_example_stops_when_it_is_broken():
    x = torch.cat([torch.full((1, 1, 6, 6), 0.49), torch.full((1, 1, 6, 6), 0.1)])
    result = attack("BIM", {"steps": 10}, Brightness(), x, "linf", 0.1)
    assert result.success.tolist() == [True, False]
    # Clean, start, first step, verification; and clean with ten steps, the last of which changes nothing.
    assert result.forwards.tolist() == [4, 11]
    # The step that succeeds is differentiated together with the others in its batch.
    assert result.backwards.tolist() == [2, 10]


def test_what_a_model_draws_does_not_change_what_the_attack_draws():
    class Drawing(Brightness):
        def forward(self, x):
            torch.rand(1)
            return super().forward(x)

    x = torch.full((8, 1, 6, 6), 0.3)
    found = [
        attack("GN", {"std": 0.01}, Drawing(), x, "linf", 0.1, known_correct=known).adversarial
        for known in (False, True)
    ]
    # Where noise darkened the image, the clean one is better, if it was evaluated.
    kept = (found[0] != x).flatten(1).any(1)
    assert kept.any()
    assert torch.equal(found[0][kept], found[1][kept])
