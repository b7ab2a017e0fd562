"""A batch attacked in one line."""

import numpy as np
import pytest
import torch
from made_up import fitted
from torch import nn

import robustframe
from robustframe.attacks import PGD, Square
from robustframe.data import load
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.threat import ThreatModel

DATA = load("digits").first(80)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return fitted(DATA)


def test_images_success_and_distance_agree_with_the_model(model: nn.Module) -> None:
    found = robustframe.attack(model, DATA.images, DATA.labels, "apgd-ce", "linf:0.1")
    with torch.no_grad():
        says = model(found.images).argmax(1)
        clean = model(DATA.images).argmax(1) == DATA.labels
    assert torch.equal(found.success, says != DATA.labels)
    assert torch.equal(found.clean_correct, clean)
    assert torch.equal(found.prediction[found.success], says[found.success])
    assert 0 < int(found.success.sum()) < len(DATA)
    assert float(found.distance.max()) <= 0.1 + 1e-6
    # What is wrong anyway needs no step.
    assert not found.distance[~clean].any()
    assert torch.equal(found.images[~clean], DATA.images[~clean])
    assert found.robust_accuracy == pytest.approx(1 - float(found.success.float().mean()))


def test_names_settings_objects_and_several_are_taken(model: nn.Module) -> None:
    def left(attack: object) -> float:
        return robustframe.attack(model, DATA.images, DATA.labels, attack, "linf:0.1").robust_accuracy

    assert left("pgd") == left(PGD()) == left({"use": "pgd"})
    assert left({"use": "pgd", "steps": 1, "restarts": 1}) > left("pgd")
    assert left(["square", PGD()]) <= min(left("square"), left("pgd"))
    one, both = (
        robustframe.attack(model, DATA.images, DATA.labels, attacks, "linf:0.1").passes
        for attacks in ("apgd-ce", ["apgd-ce", Square(queries=10)])
    )
    # Each meets what those before it left, and costs the others nothing.
    assert int(both.sum()) > int(one.sum())
    assert torch.equal(one[one == one.min()], both[one == one.min()])


def test_the_outcome_hangs_on_the_seed_alone(model: nn.Module) -> None:
    def found(**more: object) -> torch.Tensor:
        return robustframe.attack(
            model, DATA.images, DATA.labels, "square", ThreatModel.parse("linf:0.1"), **more
        ).images

    first = found()
    assert torch.equal(first, found(batch_size=16))
    assert torch.equal(
        first, robustframe.attack(model, DATA.images.numpy(), DATA.labels.tolist(), "square", "linf:0.1").images
    )
    assert not torch.equal(first, found(seed=1))
    with torch.no_grad():
        assert torch.equal(first, found())


def test_the_model_comes_back_as_it_was(model: nn.Module) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    robustframe.attack(model, DATA.images, DATA.labels, "pgd", "linf:0.1")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    model.eval()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "pdg"}, "did you mean"),
        ({"attack": {"steps": 3}}, "does not say which"),
        ({"attack": {"use": "pgd", "stepz": 3}}, "stepz"),
        ({"attack": {"use": "pgd", "through": "last:1"}}, "iterative solvers"),
        ({"threat": "linf"}, "linf"),
        ({"x": DATA.images + 1}, "\\[0, 1\\]"),
        ({"y": DATA.labels[:3]}, "labels"),
        ({"y": DATA.labels + 10}, "the model has 10 classes, but the labels go up to"),
        ({"x": np.zeros((0, 1, 8, 8)), "y": []}, "nothing to evaluate"),
    ],
)
def test_wrong_input_gets_a_sentence(model: nn.Module, change: dict[str, object], message: str) -> None:
    given = {"model": model, "x": DATA.images, "y": DATA.labels, "attack": "pgd", "threat": "linf:0.1", **change}
    with pytest.raises(InputError, match=message):
        robustframe.attack(**given)


class Flat(nn.Module):
    """A model whose answers have no gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model((x * 255).round() / 255)


def test_a_model_without_gradients_is_pointed_out(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    robustframe.attack(model, DATA.images, DATA.labels, "pgd", "linf:0.1")
    robustframe.attack(Flat(model), DATA.images, DATA.labels, "square", "linf:0.1")
    assert not caplog.text
    robustframe.attack(Flat(model), DATA.images, DATA.labels, "pgd", "linf:0.1")
    assert "the model gave PGD zeros for all gradients" in caplog.text


def test_a_model_that_takes_no_such_images_is_refused_in_a_sentence(model: nn.Module) -> None:
    with pytest.raises(InputError, match=r"the model fails on images of shape \(1, 4, 4\): .*robustframe.adapt"):
        robustframe.attack(model, torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 2]))


def test_data_in_another_box_stays_in_it() -> None:
    x = torch.tensor([[-2.9, 0.0], [2.5, -1.0]])
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        model.bias.copy_(torch.tensor([3.2, 0.0]))
    # The first is 0.3 from the line, of which the box takes 0.1 of the first number.
    for eps, breaks in ((0.15, False), (0.25, True)):
        threat = ThreatModel(norm="linf", eps=eps, low=-3.0, high=3.0)
        found = robustframe.attack(model, x, torch.zeros(2, dtype=torch.long), "apgd-ce", threat)
        assert found.success.tolist() == [breaks, False]
        assert found.images.min() >= -3
    with pytest.raises(InputError, match=r"images lie in \[-2\.9, 2\.5\], not in \[-1, 1\]: that is the box"):
        robustframe.attack(model, x, torch.zeros(2), "pgd", ThreatModel(norm="l2", eps=0.1, low=-1.0))
    with pytest.raises(InputError, match=r"evaluations take images in \[0, 1\]: scale them"):
        robustframe.evaluate(model, x / 6 + 0.5, torch.zeros(2, dtype=torch.long), threat=threat)


def test_a_box_far_from_zero_makes_no_attack_weaker() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = 256 * torch.rand(40, 1, 4, 4) - 255
    y = model(x).argmax(1)
    threat = ThreatModel(norm="linf", eps=7.7, low=-255.0, high=1.0)
    found = robustframe.attack(model, x, y, "pgd", threat)
    moved = nn.Sequential(Shifted(), model)
    same = robustframe.attack(moved, (x + 255) / 256, y, "pgd", ThreatModel(norm="linf", eps=7.7 / 256))
    assert 0 < same.robust_accuracy < 1
    assert abs(found.robust_accuracy - same.robust_accuracy) < 0.03


class Shifted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 256 * x - 255


def test_what_does_not_fit_the_images_is_refused() -> None:
    x, y = torch.rand(3, 2, 8, 8), torch.tensor([0, 1, 2])
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    for threat, words in (
        ("linf:0.1 on 4:24,4:24", "4:24 is no range of 0:8"),
        ("linf:1 on shift:9", "out of sight"),
        ("l2:1000", "every image would be allowed"),
    ):
        with pytest.raises(InputError, match=words):
            robustframe.attack(model, x, y, "pgd", threat)
        if " on " in threat:
            with pytest.raises(InputError, match=words):
                PGD().run(model, x, y, ThreatModel.parse(threat), Draws((0,), 3))
    with pytest.raises(InputError, match=r"l1:30 on mask: eps is above 16, .* for a part of 16"):
        robustframe.attack(model, x, y, "apgd", "l1:30", mask=torch.eye(8))
    with pytest.raises(InputError, match=r"eps of shape \(8,\) fits neither the 3 examples"):
        robustframe.attack(model, x, y, "pgd", "linf:0.1", eps=torch.full((8,), 0.1))
