"""One's own defence: models by source, weights from a file, preprocessing, and every mistake in a sentence."""

import hashlib
import pickle
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustframe.data import load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.models.adapters import Normalised
from robustframe.models.classifiers import Classifier, load_models
from robustframe.models.sources import SOURCES
from robustframe.models.trials import check_model
from robustframe.recipe import ModelSpec
from robustframe.verification import verify

MODEL = """
import torch
def build():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""
CPU = torch.device("cpu")


def linear() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODEL)
    return tmp_path


def find(here: Path, **spec: Any) -> Classifier:
    (found,) = load_models([ModelSpec.model_validate(spec)], folder=here, device=CPU)
    return found


def logits(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(x)


@pytest.mark.parametrize("kind", ["safetensors", "bare", "wrapped", "parallel"])
def test_weights_of_a_file_are_those_of_the_model(kind: str, here: Path) -> None:
    state = linear().state_dict()
    path = here / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(state, path)
    else:
        parallel = {f"module.{name}": tensor for name, tensor in state.items()}
        held = {"bare": state, "wrapped": {"epoch": 3, "state_dict": state}, "parallel": parallel}[kind]
        torch.save(held, path)
    found = find(here, use="file:mine.py:build", weights=path.name)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(logits(found.module, x), logits(linear(), x))
    assert found.entry.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def write_state(path: Path, **changes: Any) -> None:
    state = {**linear().state_dict(), **changes}
    torch.save({name: value for name, value in state.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "not a checkpoint of weights alone"),
        (lambda path: path.write_bytes(pickle.dumps({"weight": Evil()})), "not a checkpoint of weights alone"),
        (lambda path: torch.save({"weight": Evil()}, path), "not a checkpoint of weights alone"),
        (lambda path: torch.save(linear(), path), "Save model.state_dict()"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no state dict (epoch)"),
        (lambda path: torch.save([1, 2], path), "holds no state dict (list)"),
        (lambda path: write_state(path, **{"1.bias": None}), "does not fit the model: it lacks 1.bias"),
        (lambda path: write_state(path, more=torch.ones(1)), "it has more, which the model does not"),
        (
            lambda path: write_state(path, **{"1.bias": torch.ones(7)}),
            "1.bias is (7,) there and (10,) in the model (the last layer: set classes)",
        ),
        (lambda path: write_state(path, **{"1.bias": torch.full((10,), torch.nan)}), "1.bias holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_sentence(write: Any, sentence: str, here: Path) -> None:
    write(here / "weights.pt")
    with pytest.raises(InputError) as refused:
        find(here, use="file:mine.py:build", weights="weights.pt")
    assert sentence in str(refused.value)
    assert "weights.pt" in str(refused.value)


def test_a_file_named_safetensors_that_is_none_is_refused(here: Path) -> None:
    (here / "weights.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match="is damaged or not a safetensors file"):
        find(here, use="file:mine.py:build", weights="weights.safetensors")


def test_a_model_sees_what_its_normalisation_makes_of_the_image(here: Path) -> None:
    save_file(linear().state_dict(), here / "weights.safetensors")
    spec = {"use": "file:mine.py:build", "weights": "weights.safetensors"}
    found = find(here, **spec, normalise={"mean": [0.4], "std": [0.2]})
    x = torch.rand(5, 1, 8, 8)
    assert torch.allclose(logits(found.module, x), logits(linear(), (x - 0.4) / 0.2))
    assert found.entry.sha256 != find(here, **spec).entry.sha256


def test_another_number_of_channels_is_refused_before_anything_runs(here: Path) -> None:
    found = find(here, use="file:mine.py:build", normalise={"mean": [0.4] * 3, "std": [0.2] * 3})
    with pytest.raises(InputError, match=r"mine: normalise has 3 channels, an image has shape \(1, 8, 8\)"):
        check_model(found, load("digits").first(40), CPU)
    with pytest.raises(InputError, match="2 means and 1 standard deviations"):
        Normalised(linear(), [0.4, 0.4], [0.2])


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"use": "resnet18"}, "must read zoo:NAME, card:PATH.json"),
        ({"use": "hugging:resnet18"}, "timm:NAME"),
        ({"use": "torchvision:resnet19"}, "did you mean 'resnet18'?"),
        ({"use": "torchvision:fcn_resnet50"}, "torchvision has no classifier"),
        ({"use": "zoo:fmnist-chain3", "weights": "w.pt"}, "weights cannot be set for zoo:fmnist-chain3"),
        ({"use": "file:mine.py:build", "classes": 10}, "classes cannot be set for file:mine.py:build"),
        ({"use": "torchvision:resnet18", "weights": "pretrained", "classes": 10}, "classes cannot be set"),
        ({"use": "zoo:fmnist-chain3", "normalise": {"mean": [0.5], "std": [0.5]}}, "normalise cannot be set"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_in_a_sentence(spec: dict[str, Any], sentence: str, here: Path) -> None:
    with pytest.raises(InputError) as refused:
        find(here, **spec)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 224, 224)])
def test_torchvision_by_name_takes_small_and_large_images(shape: tuple[int, ...], here: Path) -> None:
    state = torch.get_rng_state()
    found = find(here, use="torchvision:squeezenet1_1", classes=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(
        found.module.state_dict()["classifier.1.bias"],
        find(here, use="torchvision:squeezenet1_1", classes=7).module.state_dict()["classifier.1.bias"],
    )
    assert logits(found.module, torch.rand(2, *shape)).shape == (2, 7)


def test_random_weights_of_a_model_by_name_are_flagged(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(here, use="file:mine.py:build")
    named = Classifier(found.entry.model_copy(update={"use": "timm:resnet18"}), found.module)
    assert check_model(found, load("digits").first(40), CPU) == []
    (flag,) = check_model(named, load("digits").first(40), CPU)
    assert "random weights" in flag


def test_pretrained_weights_come_from_the_cache_with_their_normalisation(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(here))
    with pytest.raises(InputError, match=r"not at .*squeezenet1_1.*fetch them with --download"):
        find(here, use="torchvision:squeezenet1_1", weights="pretrained")
    url = models.get_model_weights("squeezenet1_1").DEFAULT.url
    path = here / "checkpoints" / Path(url).name
    path.parent.mkdir()
    other = models.squeezenet1_1(weights=None)
    torch.save(other.state_dict(), path)
    found = find(here, use="torchvision:squeezenet1_1", weights="pretrained")
    assert found.entry.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    x = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = logits(other, (x - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(logits(found.module, x), expected, atol=1e-5)
    path.write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot be had"):
        find(here, use="torchvision:squeezenet1_1", weights="pretrained")


def test_timm_is_asked_by_name_and_its_absence_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def create(name: str, **settings: Any) -> nn.Module:
        asked.append((name, settings))
        return linear()

    stand_in = types.ModuleType("timm")
    vars(stand_in).update(
        create_model=create, is_model=lambda name: name == "resnet18", list_models=lambda: ["resnet18"]
    )
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    find(here, use="timm:resnet18", classes=10)
    assert asked == [("resnet18", {"num_classes": 10})]
    with pytest.raises(InputError, match="timm has no classifier 'resnet81'; did you mean 'resnet18'"):
        find(here, use="timm:resnet81")
    with pytest.raises(InputError, match="name the file in weights"):
        find(here, use="timm:resnet18", weights="pretrained")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm, which is not installed: pip install .robustframe.timm.."):
        find(here, use="timm:resnet18")


def test_the_real_timm_builds_a_model(here: Path) -> None:
    pytest.importorskip("timm")
    found = find(here, use="timm:test_resnet", classes=5)
    assert logits(found.module, torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_every_source_is_said_in_the_error_and_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    for form, _, _ in SOURCES.values():
        assert f"`{form}`" in page, form


def test_a_run_with_weights_verifies_and_names_other_weights(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    average = linear().state_dict()
    torch.save({"model": {name: 0 * each for name, each in average.items()}, "ema": average}, here / "weights.pt")
    (here / "recipe.toml").write_text(
        'schema = 1\nname = "own"\nseed = 0\nthreats = ["linf:0.01"]\nbattery = ["quick@1"]\ndiagnose = false\n'
        '[data]\nuse = "digits"\ncount = 60\n'
        '[[model]]\nuse = "file:mine.py:build"\nweights = "weights.pt:ema"\n'
    )
    run = evaluate_recipe(here / "recipe.toml", runs=here / "runs", device="cpu")
    folder = run.folder
    assert any("about as often as by chance" in flag for flag in run.record.flags)
    assert run.record.recipe["model"][0]["weights"] == "weights.pt:ema"
    # One's own run, made on this machine, does not ask again.
    assert verify(folder, folder=here, device="cpu").ok
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "of somebody else"))
    with pytest.raises(InputError, match="code of a run is not run unasked"):
        verify(folder, folder=here, device="cpu")
    verified = partial(verify, folder, folder=here, device="cpu", code=[here / "mine.py"])
    found = verified()
    assert found.ok, str(found)
    torch.save({"ema": {**average, "1.bias": torch.ones(10)}}, here / "weights.pt")
    found = verified()
    assert not found.ok
    assert "weights_sha256 is" in str(found)
