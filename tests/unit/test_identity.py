"""What a model is besides its weights: the code behind it, its attributes, its answers; a difference has a name."""

import dataclasses
import enum
import functools
import os
import re
import subprocess
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models, transforms

from robustframe.errors import InputError
from robustframe.models.identity import ALIKE, PROBES, Answers, CodeIdentity, answers, code_of, compare_answers
from robustframe.userfile import load_user_file

HERE = Path(__file__).name


class D(nn.Module):
    """Two of these with one state dict compute opposite things."""

    scale = 2

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))
        self.drop = nn.Dropout(0.5)
        self.sign = 1
        vars(self).update(attributes)

    def forward(self, x: Tensor) -> Tensor:
        return self.sign * x.flatten(1) @ self.weight


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Config:
    rate: float = 0.1
    inner: Any = None


class Plain:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def up(x: Any) -> Any:
    return x


def down(x: Any) -> Any:
    return x


def shifted(by: Any) -> Callable[[Any], Any]:
    return lambda x: x + by


def raised(x: Any, *, power: float = 2) -> Any:
    return x**power


def lowered(x: Any, *, power: float = 3) -> Any:
    return x**power


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def composed(mean: float) -> transforms.Compose:
    return transforms.Compose([transforms.Normalize([mean], [1.0])])


def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    return -output


def test_the_same_model_has_the_same_identity_part_by_part() -> None:
    one, other = code_of(D()), code_of(D())
    assert one == other
    assert one.sha256 == other.sha256
    assert one.changes(other) == []
    assert {HERE, "class D", "attribute sign of D", "settings of Dropout"} < set(one.parts)
    assert one.parts["attribute sign of D"] == "1"
    assert one.packages["torch"]
    assert one.unread == ()


def test_an_opposite_sign_is_named() -> None:
    one, other = code_of(D()), code_of(D(sign=-1))
    assert one.changes(other) == ["attribute sign of D is -1, was 1"]
    assert one.sha256 != other.sha256


PAIRS: list[tuple[Any, Any]] = [
    (1, 1.0), (True, 1), (0.1, 0.1 + 1e-17 + 1e-16), (None, False), ("a", "b"), ("1", 1), (b"a", b"b"), (-0.0, 0.0),
    ((1, 2), [1, 2]), ((1, (2, 3)), (1, 2, 3)), ({"a": 1}, {"a": 2}), ({"a": {"b": 1}}, {"a": {"b": 2}}),
    ({1: 2}, {"1": 2}), ({1, 2}, {1, 3}), (Colour.RED, Colour.BLUE), (Config(), Config(rate=0.2)),
    (Config(inner=Config()), Config(inner=Config(rate=0.3))), (Plain(a=1), Plain(a=2)), (Plain(), Config()),
    (SimpleNamespace(a=1), SimpleNamespace(a=2)), (np.arange(3), np.arange(3) + 1), (np.arange(3), np.arange(3.0)),
    (np.float32(1), np.float64(1)), (torch.ones(2), torch.zeros(2)), (torch.ones(2), torch.ones(2, 1)),
    (torch.ones(2), torch.ones(2).double()), (torch.ones(1).bfloat16(), torch.zeros(1).bfloat16()),
    (torch.float32, torch.float64), (torch.Size([1]), torch.Size([2])), (up, down), (raised, lowered),
    (shifted(1), shifted(2)), (functools.partial(raised, power=1), functools.partial(raised, power=2)),
    (torch.relu, torch.tanh), (nn.ReLU, nn.GELU), (nn.functional.relu, nn.functional.gelu),
    ([nn.Dropout(0.1)], [nn.Dropout(0.2)]), ([D()], [D(sign=-1)]), (Path("a"), Path("b")),
    (composed(0.5), composed(0.4)), (re.compile("a"), re.compile("b")),
    (range(3), range(4)), (Plain(a=1).__init__, Plain(a=2).__init__), (seeded(0), seeded(1)),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_every_kind_of_attribute_counts(place: int) -> None:
    one, other = PAIRS[place]
    before, now = code_of(D(held=one)), code_of(D(held=other))
    assert [each for each in before.changes(now) if each.startswith("attribute held of D ")]
    assert before == code_of(D(held=one))


def test_a_held_module_counts_with_its_weights() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert code_of(D(held=[one])) == code_of(D(held=[one]))
    assert code_of(D(held=[one])).changes(code_of(D(held=[other]))) == ["attribute held of D changed"]


def hooked(model: D) -> None:
    model.register_forward_hook(hook)


def buffered(model: D) -> None:
    model.register_buffer("extra", torch.ones(1), persistent=False)


def replaced(model: D) -> None:
    vars(model)["forward"] = functools.partial(hook, model, None)


def dropped(model: D) -> None:
    model.drop.p = 0.1


def other_layer(model: D) -> None:
    model.drop = nn.Identity()  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (hooked, "attribute forward_hooks of D is new"),
        (buffered, "attribute extra of D is new"),
        (replaced, "attribute forward of D is new"),
        (dropped, "settings of Dropout changed"),
        (other_layer, "the arrangement of its layers changed"),
    ],
)
def test_what_else_changes_a_models_answers_is_named(change: Any, sentence: str) -> None:
    model = D()
    before = code_of(model)
    change(model)
    assert sentence in before.changes(code_of(model))


def test_a_class_changed_while_python_runs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_of(D())
    monkeypatch.setattr(D, "scale", 3)
    assert before.changes(code_of(D())) == ["attribute scale of D is 3, was 2"]
    monkeypatch.undo()
    monkeypatch.setattr(D, "forward", lambda self, x: -x)
    assert before.changes(code_of(D())) == ["class D changed"]


def test_layers_of_a_class_that_differ_are_told_apart() -> None:
    one = nn.Sequential(D(sign=1), D(sign=-1))
    assert code_of(one).changes(code_of(nn.Sequential(D(sign=-1), D(sign=1)))) == ["attribute sign of D changed"]


def test_order_and_cycles_and_sharing_are_no_difference() -> None:
    shared = [1, 2]
    one: dict[str, Any] = {"a": shared, "b": shared, "c": {"x", "y", "z"}}
    other: dict[str, Any] = {"c": {"z", "y", "x"}, "b": [1, 2], "a": [1, 2]}
    assert code_of(D(held=one)) == code_of(D(held=other))
    assert code_of(D(held=OrderedDict(a=1, b=2))) == code_of(D(held=OrderedDict(b=2, a=1)))

    def circle() -> tuple[Plain, Plain]:
        first, second = Plain(name="one"), Plain(name="two")
        first.next, second.next = [second], {"back": first}  # type: ignore[attr-defined]
        return first, second

    (first, second), (third, fourth) = circle(), circle()
    # What a text says about a circle depends on where one enters it.
    assert code_of(D(held={"a": first, "b": second})) == code_of(D(held={"b": fourth, "a": third}))
    tangle = [Plain(number=each) for each in range(20)]
    for each in tangle:
        each.all = list(tangle)  # type: ignore[attr-defined]
    assert code_of(D(held=tangle)).unread == ("what lies deepest in its attributes",)
    model = D()
    model.own = [model]  # type: ignore[assignment]
    assert code_of(model) == code_of(model)


def test_a_device_is_no_difference() -> None:
    assert code_of(D(held=torch.device("cpu"))) == code_of(D(held=torch.device("cuda:0")))


def test_a_long_or_private_attribute_is_stated_by_its_hash() -> None:
    parts = code_of(D(path="/home/somebody/model", long="x" * 100, short="relu")).parts
    assert parts["attribute short of D"] == '"relu"'
    assert parts["attribute path of D"].startswith("sha256:")
    assert parts["attribute long of D"].startswith("sha256:")
    assert "somebody" not in str(parts)


class Counting(D):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if not hasattr(self, "cache"):
            self.cache = torch.ones(1)
        return super().forward(x)


def test_what_a_model_changes_by_answering_is_left_out_and_said() -> None:
    def settled(model: nn.Module) -> CodeIdentity:
        model(torch.ones(1, 4))
        before = code_of(model)
        model(torch.ones(1, 4))
        return before.settled(code_of(model))

    fresh, used = Counting(), Counting()
    for _ in range(5):
        used(torch.ones(1, 4))
    one, other = settled(fresh), settled(used)
    assert one.moving == ("attribute calls of Counting",)
    assert one.changes(other) == []
    assert one.sha256 == other.sha256
    assert one.changes(settled(Counting(sign=-1))) == ["attribute sign of Counting is -1, was 1"]


# Code in files, in a shell, compiled.

FILES = {
    "model.py": "from pkg.net import Net\ndef build():\n    return Net()\n",
    "pkg/net.py": "import torch\nfrom helper import SIGN\nfrom pathlib import Path\n"
    "class Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.words = {'one', 'two', 'three'}\n        self.home = str(Path(__file__).parent)\n"
    "        self.act = lambda x: x\n        self.object = object()\n        self.table = {'b': 1, 'a': {2, 3}}\n"
    "    def forward(self, x):\n        import late\n        return SIGN * x.flatten(1)\n",
    "helper.py": "import circle\nSIGN = 1\n",
    "circle.py": "import helper\n",
    "late.py": "",
}
TELL = """
import json, sys
from pathlib import Path
from robustframe.models.identity import code_of
from robustframe.userfile import load_user_file
found = code_of(load_user_file("model.py:build", Path(sys.argv[1]), kind="model")[0].build())
print(json.dumps([found.parts, found.sha256]))
"""


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def built(folder: Path) -> nn.Module:
    module: nn.Module = load_user_file("model.py:build", folder, kind="model")[0].build()
    return module


def test_a_changed_helper_is_named_however_far_it_is(tmp_path: Path) -> None:
    lay(tmp_path, FILES)
    before = code_of(built(tmp_path))
    assert set(FILES) < set(before.parts)
    for name in ("helper.py", "circle.py", "late.py"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "# more\n")
        assert before.changes(code_of(built(tmp_path))) == [f"{name} changed"]
        (tmp_path / name).write_text(text)
    assert before.changes(code_of(built(tmp_path))) == []


def test_the_identity_is_that_of_every_process_and_folder(tmp_path: Path) -> None:
    said = []
    for seed, folder in (("0", tmp_path / "one"), ("1", tmp_path / "far" / "away")):
        lay(folder, FILES)
        done = subprocess.run(
            [sys.executable, "-c", TELL, folder],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        said.append(done.stdout)
    assert said[0] == said[1]
    assert "pkg/net.py" in said[0]


NOTEBOOK = """
import torch
SIGN = 1
def helper(x):
    return SIGN * x
class Net(torch.nn.Module):
    def forward(self, x):
        return helper(x)
"""


def in_a_notebook(text: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Define a class the way a notebook does: no file, the source of each cell in `linecache`."""
    import linecache

    name = f"<cell {len(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    module = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    exec(compile(text, name, "exec"), vars(module))
    net: nn.Module = module.Net()
    return net


@pytest.mark.parametrize("edit", [("SIGN = 1", "SIGN = -1"), ("SIGN * x", "SIGN - x"), ("helper(x)\n", "helper(-x)\n")])
def test_a_class_of_a_notebook_is_known_by_its_source_and_what_it_uses(
    edit: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_of(in_a_notebook(NOTEBOOK, monkeypatch))
    assert before.unread == ()
    assert before.changes(code_of(in_a_notebook(NOTEBOOK, monkeypatch))) == []
    assert before.changes(code_of(in_a_notebook(NOTEBOOK.replace(*edit), monkeypatch))) == ["class Net changed"]


def test_what_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = ModuleType("a_shell")
    monkeypatch.setitem(sys.modules, "a_shell", shell)
    exec(compile(NOTEBOOK, "<stdin>", "exec"), vars(shell))
    assert code_of(shell.Net()).unread == ("a_shell.Net.forward", "a_shell.helper")
    with warnings.catch_warnings(action="ignore"):
        scripted = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))
    assert code_of(nn.Sequential(scripted)).unread == ("layer 0 (compiled by torch.jit)",)
    assert code_of(D()).changes(code_of(shell.Net()))[-1] == "a_shell.helper can no longer be read"


def test_a_graph_module_is_known_by_its_code() -> None:
    class Twice(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return x * self.by

    one, other = (torch.fx.symbolic_trace(Twice(by)) for by in (2.0, 3.0))
    assert code_of(one).changes(code_of(other)) != []


def test_a_resnet_and_a_hundred_modules_take_less_than_a_second(tmp_path: Path) -> None:
    filler = "\n".join(f"def f{each}(x, y=1):\n    return [x + each * y for each in range(9)]\n" for each in range(100))
    names = [f"part{each}" for each in range(100)]
    lay(tmp_path, {f"{name}.py": filler for name in names})
    (tmp_path / "model.py").write_text(
        "\n".join(f"import {name}" for name in names)
        + "\nfrom torchvision.models import ResNet\nclass Net(ResNet):\n    pass\ndef build():\n"
        "    from torchvision.models.resnet import Bottleneck\n    return Net(Bottleneck, [3, 4, 6, 3])\n"
    )
    model = built(tmp_path)
    start = time.process_time()
    found = code_of(model)
    # The processor's time, as other processes may be at work.
    assert time.process_time() - start < 1
    assert {f"{name}.py" for name in names} < set(found.parts)
    assert len(found.parts) < 200


def test_installed_packages_are_known_by_their_version() -> None:
    before = code_of(models.squeezenet1_1())
    assert set(before.packages) == {"torch", "torchvision"}
    assert not [part for part in before.parts if part.endswith(".py")]
    now = dataclasses.replace(before, packages={**before.packages, "torch": "9.9"})
    assert now.sha256 == before.sha256
    assert before.other_packages(now) == [f"torch is 9.9, was {before.packages['torch']}"]
    assert before.other_packages(dataclasses.replace(before, packages={"torch": ""})) == []


# Answers.

X = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Noisy(D):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.01 * torch.rand(len(x), 3)


class Wrong(D):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum()


def test_answers_are_the_logits_of_the_first_images_and_the_model_is_given_back() -> None:
    model = D().train()
    state = torch.get_rng_state()
    said = answers(model, X)
    assert said.logits.shape == (PROBES, 3)
    assert torch.allclose(said.logits, X[:PROBES].flatten(1) @ torch.ones(4, 3))
    assert not said.random
    assert torch.equal(answers(model, X[:3]).logits, said.logits[:3])
    assert (model.training, model.drop.training, model.weight.requires_grad) == (True, True, True)
    assert torch.equal(torch.get_rng_state(), state)
    assert answers(D().double(), X.double()).logits.dtype == torch.float32
    with pytest.raises(InputError, match="must return logits"):
        answers(Wrong(), X)


def test_a_model_that_draws_numbers_is_random_and_not_compared() -> None:
    noisy, steady = answers(Noisy(), X), answers(D(), X)
    assert noisy.random
    assert compare_answers(noisy, steady, alike=True) is None
    assert "differently each time" in str(compare_answers(steady, noisy, alike=True))


def test_rounding_is_allowed_and_no_more() -> None:
    stated = Answers(torch.tensor([[1.0, -20.0], [3.0, 4.0]]))

    def moved(by: float) -> Answers:
        return Answers(stated.logits + torch.tensor([[0.0, 0.0], [by, 0.0]]))

    assert compare_answers(stated, moved(0.9 * ALIKE * 20), alike=True) is None
    found = compare_answers(stated, moved(1.5 * ALIKE * 20), alike=True)
    assert found is not None
    assert found.startswith("the model answers otherwise: logit 0 of probe image 2 is 3.0003, was 3")
    assert compare_answers(stated, moved(1.5 * ALIKE * 20), alike=False) is None
    assert compare_answers(stated, moved(0.03), alike=False) is not None


@pytest.mark.parametrize(
    ("stated", "now", "words"),
    [
        ([[1.0, torch.nan]], [[1.0, torch.nan]], None),
        ([[1.0, torch.inf]], [[1.0, torch.inf]], None),
        ([[0.0, 0.0]], [[0.0, 0.0]], None),
        ([[1.0, torch.nan]], [[1.0, 2.0]], "answers NaN to other images"),
        ([[1.0, 2.0]], [[torch.nan, 2.0]], "answers NaN to other images"),
        ([[1.0, torch.inf]], [[1.0, -torch.inf]], "logit 1 of probe image 1 is -inf, was inf"),
        ([[1.0, 2.0]], [[1.0, torch.inf]], "is inf, was 2"),
        ([[0.0, 0.0]], [[0.0, 1e-9]], "is 1e-09, was 0"),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], r"logits of shape \(1, 3\), not \(1, 2\)"),
    ],
)
def test_odd_answers_are_compared_too(stated: Any, now: Any, words: str | None) -> None:
    found = compare_answers(Answers(torch.tensor(stated)), Answers(torch.tensor(now)), alike=True)
    assert found is None if words is None else re.search(words, str(found))
