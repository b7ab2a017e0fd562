"""What is read of a network, however it is written, and what is refused in a sentence."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from networks import SMALL, Build, Chance, Twice, drawn, images
from torch import Tensor, nn
from torch.nn.utils import prune

from robustframe.errors import InputError
from robustframe.frames.trace import trace
from robustframe.pairs import reframe


class Branching(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(x)) if x.sum() > 0 else x)  # type: ignore[no-any-return]


class Function(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(F.linear(x, self.one.weight)))  # type: ignore[no-any-return]


class Both(Twice):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x))
        return self.head(F.relu(y - 1) * y)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        (Twice().eval(), (4,), "layer 'one' is called more than once"),
        (Branching().eval(), (4,), "cannot be traced by torch.fx, because what it does depends on its input"),
        (Twice().train(), (4,), r"the model is in training mode; call model.eval\(\) first"),
        (drawn(SMALL["vgg"][0]), (3, 8, 8), r"does not take inputs of shape \(3, 8, 8\)"),
        (drawn(SMALL["vgg"][0]), (1, 8), "must be"),
        (drawn(SMALL["vgg"][0]), "1x8x8", "it must be the shape of one image"),
        (drawn(SMALL["vgg"][0]), (1, 8, True), "must be a whole number of at least 1"),
        (nn.Linear(4, 2).eval(), (4,), "no layer with a ReLU behind it"),
        (nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)).eval(), (4,), "1: GELU"),
        ("a model", (4,), "reframe reads a torch.nn.Module"),
    ],
)
def test_bad_input_gets_a_sentence(model: nn.Module, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        reframe(model, shape)


class Optional(Twice):
    def forward(self, x: Tensor, features: bool = False) -> Tensor:
        y = F.relu(self.one(x))
        return y if features else self.head(y)  # type: ignore[no-any-return]


def test_arguments_with_defaults_and_parametrised_weights_are_read() -> None:
    x = images((4,))
    normed = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 2))
    for model in (Optional().eval(), normed.eval()):
        with torch.no_grad():
            assert torch.allclose(reframe(model, (4,)).pair.feedforward(x), model(x), atol=1e-5)


def test_functions_with_weights_and_products_are_named() -> None:
    for model, sentence in ((Function(), "linear is called as a function"), (Both(), "a product of two values")):
        found = reframe(model.eval(), (4,)) if isinstance(model, Both) else None
        if found is not None:
            assert sentence in found.unread[0].why
        else:
            assert sentence in str(reframe(model.eval(), (4,)).why_no_pair)


def hooked(change: Callable[[Tensor], Tensor | None]) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    model[2].register_forward_hook(lambda layer, given, made: change(made))
    return model


class Changed(Twice):
    """Changes a value in place of which it has another name."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x))
        z = y
        z += 1
        return self.head(F.relu(y + z))  # type: ignore[no-any-return]


class Counting(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(x)) * x.shape[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (hooked(lambda made: made + 0.1), r"layer 2 \(2\)"),
        (nn.Sequential(hooked(lambda made: 2 * made), nn.Tanh()).eval(), r"layer 2 \(0.2\)"),
        (Changed().eval(), "the model"),
        (Chance().eval(), "the model"),
        (Counting().eval(), "the model"),
    ],
)
def test_what_layers_do_not_say_is_refused(model: nn.Module, name: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=f"{name} is not what the model's layers say"):
        trace(model, (4,))
    assert torch.equal(before, torch.get_rng_state())


def test_a_hook_that_only_looks_is_no_reason_to_refuse() -> None:
    assert reframe(hooked(lambda made: None), (4,)).why_no_pair is None


class InPlace(Twice):
    """Changes values in place, with the result thrown away or read under both names."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.relu = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        y.mul_(2)
        F.relu(y, inplace=True)
        z = self.two(y)
        y = self.relu(z)
        return self.head(F.relu(y + z))  # type: ignore[no-any-return]


class ByName(Twice):
    """Calls functions with arguments by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.div(F.relu(input=self.conv(input=x)), other=2)
        y = torch.mean(torch.cat(tensors=[y, y], dim=1), dim=(2, 3))
        return self.head(F.relu(self.one(torch.flatten(input=y, start_dim=1))))  # type: ignore[no-any-return]


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), torch.nn.utils.spectral_norm(nn.Linear(5, 2)))
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


@pytest.mark.parametrize(("build", "shape"), [(InPlace, (4,)), (ByName, (1, 5, 5)), (pruned, (4,))])
def test_ways_of_writing_a_network_make_no_difference(build: Build, shape: tuple[int, ...]) -> None:
    model, x = drawn(build), images(shape)
    with torch.no_grad():
        assert torch.allclose(reframe(model, shape).pair.feedforward(x), model(x), atol=1e-5)


class Applied(nn.Module):
    """A convolution with a ReLU, some function, and a head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.function = nn.Conv2d(1, 2, 3, padding=1), nn.LazyLinear(2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(F.relu(self.conv(x))).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (nn.AvgPool2d(2, divisor_override=3), "divides by another number than that of its pixels"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), "divides by another number than that of its pixels"),
        (lambda x: torch.sub(x, 0.5, alpha=2), "sub has a factor alpha or rounds"),
        (lambda x: torch.div(x, 0.5, rounding_mode="floor"), "div has a factor alpha or rounds"),
        (lambda x: x.mean(1), "a mean over something else than the pixels"),
        (lambda x: 1 - x, "a value is subtracted"),
        (nn.Upsample(scale_factor=2), "Upsample: nothing that is read computes the same"),
    ],
)
def test_functions_that_are_no_frame_are_named(function: Callable[[Tensor], Tensor], sentence: str) -> None:
    model = Applied(function).eval()
    model(images((1, 4, 4)))
    assert sentence in str(reframe(model, (1, 4, 4)).why_no_pair)


def test_networks_that_cannot_be_copied_or_have_no_numbers_are_refused() -> None:
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    locked, broken = copy.deepcopy(plain), copy.deepcopy(plain)
    locked.lock = threading.Lock()  # type: ignore[assignment]
    broken[2].bias.data[0] = float("nan")  # type: ignore[union-attr, operator]
    for model, sentence in (
        (plain.to("meta"), "Sequential cannot be copied to be read"),
        (locked, "Sequential cannot be copied to be read"),
        (broken, r"the model is not finite for images in \[0, 1\]"),
    ):
        with pytest.raises(InputError, match=sentence):
            reframe(model, (4,))


def test_a_channel_without_weights_keeps_its_bias() -> None:
    model = drawn(SMALL["mlp"][0])
    with torch.no_grad():
        model[1].weight[2] = 0  # type: ignore[union-attr, operator]
    x = images((1, 6, 6))
    with torch.no_grad():
        assert torch.allclose(reframe(model, (1, 6, 6)).pair.feedforward(x), model(x), atol=1e-5)
    with torch.no_grad():
        model[1].weight.zero_()  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match=r"layer 1 \(1\) has no weights but zeros"):
        reframe(model, (1, 6, 6))
