"""Models as they come: each kind is evaluated, or refused with the line that cures it, and the line cures it."""

import copy
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustframe
from robustframe.calls import answer, require_differentiable
from robustframe.errors import InputError
from robustframe.models import adapters
from robustframe.models.classifiers import load_models
from robustframe.models.trials import slope_of
from robustframe.recipe import ModelSpec, Recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*(torch.jit|torch.ao|quantiz|The .grad attribute)")


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        return nn.Sequential(*layers)


X = torch.rand((20, 1, 8, 8), generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    LOGITS = net().eval()(X)
Y = LOGITS.argmax(1)


class Says(nn.Module):
    """A network that returns something made of its logits."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.make = net(), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.net(x))


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.loss, self.logits = None, logits


class ChannelsBehind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Any:
        return self.net(x.permute(0, 3, 1, 2))


class CastsItself(nn.Module):
    """Prepares its images in float32, and computes in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net().bfloat16()

    def forward(self, x: Tensor) -> Any:
        return self.net(((x - 0.5) * 2 / 2 + 0.5).bfloat16())


def colour() -> nn.Sequential:
    """A network of three channels that says of grey in all of them what `net` says of it in one."""
    model, grey = net(), net()[0]
    model[0] = nn.Conv2d(3, 4, 3)
    model[0].load_state_dict({"weight": grey.weight.repeat(1, 3, 1, 1) / 3, "bias": grey.bias})
    return model


def dictionary(logits: Tensor) -> dict[str, Any]:
    return {"loss": logits.mean(), "logits": logits}


def pair_of(logits: Tensor) -> tuple[Any, ...]:
    return None, logits


def one_number(logits: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 0]


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), (X[:4],), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.ao.quantization.quantize_dynamic(net().eval(), {nn.Linear}, dtype=torch.qint8)
    return made


def scripted() -> nn.Module:
    made: nn.Module = torch.jit.script(net().eval())
    return made


def traced() -> nn.Module:
    made: nn.Module = torch.jit.trace(net().eval(), X[:2])
    return made


def frozen() -> nn.Module:
    made: nn.Module = torch.jit.freeze(torch.jit.script(net().eval()))
    return made


HELD = net()


def function(x: Tensor) -> Any:
    return {"out": HELD(x)}


KINDS: dict[str, Callable[[], nn.Module]] = {
    "an object with logits": lambda: Says(Output),
    "a dict": lambda: robustframe.adapt(Says(dictionary), output="logits"),
    "a tuple": lambda: robustframe.adapt(Says(pair_of), output=1),
    "an attribute": lambda: robustframe.adapt(Says(Output), output="logits"),
    "float64": lambda: net().double(),
    "float16": lambda: net().half(),
    "bfloat16": lambda: net().bfloat16(),
    "bfloat16 behind float32": CastsItself,
    "bfloat16 behind a scale": lambda: robustframe.adapt(net().bfloat16(), normalise=([0.0], [1.0])),
    "channels last": lambda: robustframe.adapt(ChannelsBehind(), channels_last=True),
    "normalised": lambda: robustframe.adapt(net(), normalise=([0.0], [1.0])),
    "of three channels": lambda: robustframe.adapt(colour(), channels=3, normalise=([0.0] * 3, [1.0] * 3)),
    "resized": lambda: robustframe.adapt(net(), resize=(8, 8)),
    "a function": lambda: robustframe.adapt(function, output="out"),
    "a method": lambda: robustframe.adapt(net().forward),
    "TorchScript": scripted,
    "traced": traced,
    "frozen TorchScript": frozen,
    "exported": lambda: exported(net()).module(),
    "exported, normalised": lambda: robustframe.adapt(exported(net()).module(), normalise=([0.0], [1.0])),
    "quantised": quantised,
    "compiled": lambda: torch.compile(net(), backend="eager"),  # type: ignore[dict-item,return-value]
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_as_it_comes_is_evaluated_and_verified(kind: str) -> None:
    model = KINDS[kind]()
    run = robustframe.evaluate(model, X, Y, threat="linf:0.05", battery="quick", diagnose=False)
    (result,) = run.results
    assert result.clean_correct >= 19
    assert any("gives no gradient" in flag for flag in run.record.flags) == (kind == "quantised")
    narrow = [flag for flag in run.record.flags if "has weights of" in flag]
    assert bool(narrow) == (kind.split()[0] in ("float64", "float16", "bfloat16"))
    found = robustframe.verify(run.folder, model=model, x=X, y=Y)
    assert found.ok, str(found)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "quantised"])
def test_logits_are_float32_and_gradients_go_through(kind: str) -> None:
    assert slope_of(KINDS[kind](), X)
    attacked = robustframe.attack(KINDS[kind](), X, Y, "pgd", "linf:0.5")
    assert attacked.success.float().mean() > 0.5


def test_a_half_model_is_diagnosed_like_any_other() -> None:
    run = robustframe.evaluate(net().half(), X, Y, threat="linf:0.05", battery="quick")
    diagnosis = run.results[0].diagnosis
    assert diagnosis is not None
    assert {check.name: check.passed for check in diagnosis.checks}["input-dependent-computation"]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a dict": (lambda: Says(dictionary), "robustframe.adapt(model, output='logits'), output = \"logits\" in a recipe"),
    "a tuple": (lambda: Says(pair_of), "robustframe.adapt(model, output=1), output = 1 in a recipe"),
    "one number": (lambda: Says(one_number), "robustframe.adapt(model, sigmoid=True)"),
    "one column": (lambda: Says(lambda logits: logits[:, :1]), "robustframe.adapt(model, sigmoid=True)"),
    "class numbers": (lambda: Says(lambda logits: logits.argmax(1)), "it must return logits of shape (24, classes)"),
    "one batch": (
        lambda: torch.export.export(net().eval(), (X[:4],)).module(),
        "it takes 4 images at a time and no other number, so export it with dynamic_shapes",
    ),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "call it on one image first"),
    "three channels": (
        colour,
        "it takes grey images after robustframe.adapt(model, channels=3), channels = 3 in a recipe",
    ),
    "three channels, normalised": (
        lambda: robustframe.adapt(colour(), normalise=([0.0] * 3, [1.0] * 3)),
        "an image has shape (1, 8, 8); it takes grey images after robustframe.adapt(model, channels=3), channels = 3",
    ),
    "channels last": (ChannelsBehind, "it takes them after robustframe.adapt(model, channels_last=True)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_cannot_be_evaluated_is_refused_with_what_cures_it(kind: str) -> None:
    make, sentence = REFUSED[kind]
    with pytest.raises(InputError) as refused:
        robustframe.evaluate(make(), X, Y, threat="linf:0.05", battery="quick", diagnose=False)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: function, "the model is a function, not a torch.nn.Module; wrap it, robustframe.adapt(model)"),
        (lambda: Says, "the model is the class Says; make one of it, Says(...)"),
        (lambda: exported(net()), "the model is an exported program; take its module, model.module()"),
        (lambda: "resnet18", "the model is str; it must be a torch.nn.Module"),
    ],
)
def test_what_is_no_module_is_refused_with_what_makes_one_of_it(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        require_differentiable(make())
    assert str(refused.value) == sentence


@pytest.mark.parametrize("way", [robustframe.evaluate, robustframe.attack], ids=["evaluate", "attack"])
def test_only_a_model_of_three_channels_on_grey_images_is_told_to_repeat_them(way: Any) -> None:
    three, two, four = X.repeat(1, 3, 1, 1), X.repeat(1, 2, 1, 1), nn.Conv2d(4, 3, 8)
    both = robustframe.adapt(net(), normalise=([0.5] * 3, [0.5] * 3))
    for model, images in ((net(), three), (colour(), two), (nn.Sequential(four, nn.Flatten()), X), (both, X)):
        with pytest.raises(InputError) as refused:
            way(model, images, Y, threat="linf:0.05")
        assert "channels=" not in str(refused.value)
    for model in (colour(), robustframe.adapt(colour(), normalise=([0.5] * 3, [0.5] * 3))):
        with pytest.raises(InputError, match=r"adapt\(model, channels=3\), channels = 3 in a recipe$"):
            way(model, X, Y, threat="linf:0.05")


def test_grey_images_are_repeated_and_colour_is_left_alone() -> None:
    seen: list[Tensor] = []
    model = robustframe.adapt(seen.append, channels=3, resize=(4, 4), normalise=([0.0, 0.5, 1.0], [1.0, 0.5, 0.25]))
    grey = torch.full((2, 1, 8, 8), 0.5)
    model(grey)
    model(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([0.5, 0.0, -2.0]))
    assert seen[0].shape == (2, 3, 4, 4)
    assert torch.equal(seen[0], seen[1])
    for images in (X.repeat(1, 2, 1, 1), X[:, 0]):
        with pytest.raises(InputError, match=r"channels = 3 repeats the one channel of grey images; an image has sh"):
            model(images)
    with torch.no_grad():
        torch.testing.assert_close(robustframe.adapt(colour().eval(), channels=3)(X), LOGITS)


def test_a_transformer_that_takes_one_size_is_refused_and_cured_by_scaling() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model, x, y = VisionTransformer(32, 8, 1, 1, 16, 16, num_classes=3), torch.rand(20, 3, 28, 28), Y
    evaluated = functools.partial(robustframe.evaluate, threat="linf:0.05", battery="quick", diagnose=False)
    with pytest.raises(InputError, match=r"it takes them after robustframe\.adapt\(model, resize=\(32, 32\)\)"):
        evaluated(model, x, y)
    (result,) = evaluated(robustframe.adapt(model, resize=(32, 32)), x, y).results
    assert result.examples == 20
    with pytest.raises(InputError, match=r"after robustframe\.adapt\(model, channels=3, resize=\(32, 32\)\)"):
        evaluated(model, x[:, :1], y)


def test_one_number_before_a_sigmoid_decides_between_two_classes() -> None:
    with torch.no_grad():
        number = one_number(LOGITS)
        for make in (one_number, lambda logits: one_number(logits)[:, None]):
            said = answer(robustframe.adapt(Says(make), sigmoid=True).eval(), X)
            torch.testing.assert_close(said, torch.stack([torch.zeros(20), number], 1))
    with pytest.raises(InputError, match=r"returned \(20, 3\) for 20 images, not one number each"):
        robustframe.adapt(net(), sigmoid=True)(X)


def test_images_are_cast_only_for_a_model_that_does_not_take_them() -> None:
    seen: list[torch.dtype] = []

    class Sees(CastsItself):
        def forward(self, x: Tensor) -> Any:
            seen.append(x.dtype)
            return super().forward(x)

    answer(Sees(), X)
    assert seen == [torch.float32]


def test_images_are_scaled_then_normalised_then_turned() -> None:
    seen: list[Tensor] = []
    model = robustframe.adapt(seen.append, resize=(4, 6), normalise=([0.5], [0.25]), channels_last=True)
    model(torch.ones(2, 1, 8, 8))
    torch.testing.assert_close(seen[0], torch.full((2, 4, 6, 1), 2.0))


def test_the_modules_of_a_function_are_evaluated_as_modules_and_given_back() -> None:
    held = net().train()
    statistics = copy.deepcopy(held.state_dict())
    made = [
        robustframe.adapt(lambda x: held(x)),
        robustframe.adapt(functools.partial(lambda model, x: model(x), held)),
        robustframe.adapt({"x": held}["x"].__call__),
    ]
    for model in made:
        run = robustframe.evaluate(model, X, Y, threat="linf:0.05", battery="quick", diagnose=False)
        assert run.results[0].clean_correct == 20
        assert held.training
        assert all(torch.equal(each, statistics[name]) for name, each in held.state_dict().items())
        assert run.record.classifiers[0].parameters == sum(each.numel() for each in held.parameters())


def test_the_rounded_weights_of_a_quantised_model_are_part_of_what_it_is() -> None:
    def sha256(model: nn.Module) -> str:
        run = robustframe.evaluate(model, X, Y, threat="linf:0.01", battery="quick", diagnose=False)
        return run.record.classifiers[0].sha256

    other = quantised()
    weight, bias = other[4]._weight_bias()  # type: ignore[index,operator]
    changed = torch.quantize_per_tensor(-weight.dequantize(), weight.q_scale(), 0, torch.qint8)
    other[4].set_weight_bias(changed, bias)  # type: ignore[index,operator]
    assert sha256(quantised()) == sha256(quantised())
    assert sha256(quantised()) != sha256(other)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"output": "logit"}, "the model returned a dict of loss, logits, which has no 'logit'"),
        ({"output": 7}, "the model returned a dict of loss, logits, which has no 7"),
    ],
)
def test_what_a_model_does_not_return_cannot_be_taken(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        robustframe.adapt(Says(dictionary), **given)(X)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        (Says, {}, "the model is the class Says"),
        (net(), {"resize": (0, 4)}, r"resize = \(0, 4\) must be a height and a width"),
        (net(), {"normalise": ([0.5, 0.5], [1.0])}, "2 means and 1 standard deviations"),
    ],
)
def test_what_cannot_be_adapted_is_refused(model: Any, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        robustframe.adapt(model, **given)


FILE = """
import torch
class Several(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
    def forward(self, x):
        logits = self.layer(x.flatten(1))
        return {"logits": logits, "first": logits[:, 0], "all": (logits, 2 * logits)}
def build():
    torch.manual_seed(0)
    return Several()
def function():
    return lambda x: x
"""


def test_a_recipe_says_where_the_logits_are(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    load = functools.partial(load_models, folder=tmp_path, device=torch.device("cpu"))
    x = torch.rand(5, 1, 8, 8)
    for given, shape in (({"output": "logits"}, (5, 10)), ({"output": "first", "sigmoid": True}, (5, 2))):
        (found,) = load([ModelSpec.model_validate({"use": "file:mine.py:build", **given})])
        assert found.module(x).shape == shape
    with pytest.raises(InputError, match=r"built no model: the model is a function.*robustframe\.adapt\(model\)"):
        load([ModelSpec(use="file:mine.py:function")])
    with pytest.raises(
        InputError, match="is a pair, which solves for the image itself; leave channels, normalise, output"
    ):
        load([ModelSpec(use="zoo:fmnist-chain3", output="logits")])


def test_a_recipe_that_says_nothing_of_outputs_asks_what_it_always_did() -> None:
    stated = ModelSpec(use="zoo:fmnist-chain3").model_dump(by_alias=True)
    assert list(stated) == ["use", "name", "twins", "sweeps", "weights", "classes", "normalise"]
    given = ModelSpec(use="file:a.py:b", output=0, sigmoid=True)
    assert ModelSpec.model_validate(given.model_dump(by_alias=True)) == given
    assert "output" in given.model_dump(by_alias=True)
    assert ModelSpec(use="file:a.py:b", channels=3).model_dump()["channels"] == 3
    assert Recipe.model_fields["model"].annotation == list[ModelSpec]


GREY = """
schema = 1
name = "grey"
seed = 0
threats = ["linf:0.05"]
battery = ["quick"]
diagnose = false
data = {{ use = "digits", count = 20 }}
[[model]]
use = "file:colour.py:build"
{settings}
"""


def test_channels_of_a_recipe_are_part_of_its_run(tmp_path: Path) -> None:
    code = tmp_path / "colour.py"
    code.write_text(
        FILE.replace("Linear(64", "Linear(192").replace('return {"logits": logits', 'return logits, {"l": 0')
    )
    settings = "output = 0\nnormalise = { mean = [0.1, 0.2, 0.3], std = [0.5, 0.5, 0.5] }"
    recipe = tmp_path / "grey.toml"
    recipe.write_text(GREY.format(settings=settings))
    with pytest.raises(InputError, match=r"colour: normalise has 3 channels, .*; it takes grey .* channels = 3 in a"):
        robustframe.evaluate_recipe(recipe, out=tmp_path / "run")
    recipe.write_text(GREY.format(settings=f"channels = 3\n{settings}"))
    run = robustframe.evaluate_recipe(recipe, out=tmp_path / "run")
    assert run.record.recipe["model"][0]["channels"] == 3
    assert robustframe.verify(run.folder, folder=tmp_path, code=[code]).ok
    # Taken out, it is another model.
    spec = ModelSpec(use="file:colour.py:build", output=0)
    known = [spec, spec.model_copy(update={"channels": 3, "name": "three"})]
    plain, three = load_models(known, folder=tmp_path, device=torch.device("cpu"))
    assert plain.entry.sha256 != three.entry.sha256
    with pytest.raises(InputError, match="channels cannot be set for zoo:fmnist-chain3: its card states them"):
        load_models([ModelSpec(use="zoo:fmnist-chain3", channels=3)], folder=tmp_path, device=torch.device("cpu"))


def test_one_number_stands_for_one_channel_and_both_sides() -> None:
    images = torch.rand(3, 1, 8, 8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    by_hand = net((images - 0.5) / 0.25)
    assert torch.allclose(robustframe.adapt(net, normalise=(0.5, 0.25))(images), by_hand)
    small = torch.rand(3, 1, 4, 4)
    assert torch.equal(robustframe.adapt(net, resize=8)(small), robustframe.adapt(net, resize=(8, 8))(small))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"normalise": ([0.5], [-1.0])}, "a standard deviation is above 0"),
        ({"normalise": ([0.5], [0.5, 0.5])}, "1 means and 2 standard deviations"),
        ({"resize": 0}, "must be a height and a width"),
        ({"channels": 1}, "channels 1 must be a whole number of at least 2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        robustframe.adapt(nn.Flatten(), **settings)


def test_settings_of_another_type_are_refused_in_a_sentence() -> None:
    for given in (3, "ab", ([0.5],)):
        with pytest.raises(InputError, match="must be means and standard deviations"):
            adapters._two(given, "normalise")
    with pytest.raises(InputError, match="resize = '88' must be a height and a width"):
        adapters._two("88", "resize")
    for part in ("a", None, []):
        with pytest.raises(InputError, match="where a number for each channel is asked for"):
            adapters._each_channel(part)
