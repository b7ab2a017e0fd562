"""Images one can save: an adversarial image that is a PNG file still breaks the model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import robustframe
from robustframe.attacks import ATTACKS, make_attack
from robustframe.data import load
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.runs import open_run
from robustframe.threat import ThreatModel
from robustframe.types import NORMS, Norm
from robustframe.verification.replay import _not_allowed
from robustframe.zoo import load_card

SMALL = {"l0": 8.0, "l1": 5.0, "l2": 1.2, "linf": 0.2}


@given(st.sampled_from(NORMS), st.integers(0, 2**31), st.floats(0.01, 1))
def test_rounding_stays_inside_and_on_the_grid(norm: Norm, seed: int, size: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (8, 1, 3, 4), generator=draws) / 255
    eps = {"l0": 5.0, "l1": 6 * size, "l2": 2 * size, "linf": size}[norm]
    threat = ThreatModel(norm=norm, eps=eps, valid="uint8")
    z = threat.project(x, x + 2 * size * torch.randn(x.shape, generator=draws))
    rounded = threat.rounded(x, z)
    assert threat.contains(x, rounded).all()
    assert torch.equal(torch.round(rounded * 255) / 255, rounded)
    assert float((rounded - z).abs().max()) <= 1 / 255 + 1e-6
    assert torch.equal(threat.rounded(x, rounded), rounded)
    assert not threat.contains(x, x + 0.4 / 255).any()


@pytest.mark.parametrize(
    ("use", "norm"),
    [
        (use, next(n for n in ("linf", "l2", "l1", "l0") if n in cls.norms))
        for use, cls in ATTACKS.items()
        if use != "grid"
    ],
)
def test_every_attack_finds_images_that_can_be_saved(use: str, norm: Norm, tiny_card: Path) -> None:
    model = load_card(tiny_card)[0].feedforward
    data = load("digits", "test").first(12)
    # Digits come in steps of 1/16.
    x = torch.round(data.images * 255) / 255
    y = model(x).argmax(1)
    settings = {"queries": 60} if use in ("square", "random-search") else {"steps": 6}
    if use == "fgsm":
        settings = {}
    threat = ThreatModel(norm=norm, eps=4 * SMALL[norm] if norm != "linf" else 0.5, valid="uint8")
    found = make_attack(use, settings).run(model, x, y, threat, Draws((0, use), 12), known_correct=True)
    assert found.success.any()
    broken = found.adversarial[found.success]
    assert torch.equal(torch.round(broken * 255) / 255, broken)
    assert (model(broken).argmax(1) == found.prediction[found.success]).all()
    assert threat.contains(x[found.success], broken).all()


@pytest.fixture(scope="module")
def saved(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    data = load("digits", "test").first(40)
    np.savez(
        folder / "bytes.npz", images=np.rint(data.images.numpy() * 255).astype(np.uint8), labels=data.labels.numpy()
    )
    (folder / "fast.toml").write_text(
        'schema = 1\nname = "fast"\nversion = "0.1"\n[[attack]]\nuse = "apgd"\nsteps = 6\nloss = "margin"\n'
    )
    (folder / "recipe.toml").write_text(
        'schema = 1\nname = "saved"\nseed = 3\nchunk = 40\nbattery = ["fast.toml"]\n'
        'threats = ["linf:0.15 in uint8", "linf:0.15"]\ndiagnose = false\n'
        f'[data]\nuse = "file:bytes.npz"\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    return robustframe.evaluate_recipe(folder / "recipe.toml", runs=folder / "runs", device="cpu").folder


def test_saved_images_break_the_model_when_they_are_read_again(saved: Path, tmp_path: Path, tiny_card: Path) -> None:
    run = open_run(saved, recipe_folder=saved.parent.parent)
    name = next(each.name for each in run.record.classifiers if each.twin == "feedforward")
    files = run.save_images(tmp_path / "png", name, "linf:0.15 in uint8")
    assert len(files) == int(run.adversarial(name, "linf:0.15 in uint8").broken.sum()) > 5
    model, data = load_card(tiny_card)[0].feedforward, run.examples()
    for file in files:
        index, _, label, _, prediction = file.stem.split("-")
        again = torch.from_numpy(np.array(Image.open(file))).float()[None, None] / 255
        assert int(label) == int(data.labels[int(index)])
        assert int(model(again).argmax()) == int(prediction) != int(label)
        assert float((again[0] - data.images[int(index)]).abs().max()) <= 0.15 + 1e-6
    assert robustframe.verify(saved, folder=saved.parent.parent).ok


def test_what_cannot_be_saved_is_refused(saved: Path, tmp_path: Path, tiny_card: Path) -> None:
    run = open_run(saved)
    name = run.record.classifiers[0].name
    with pytest.raises(InputError, match=r"evaluate 'linf:0\.15 in uint8'"):
        run.save_images(tmp_path, name, "linf:0.15")
    model, data = load_card(tiny_card)[0].feedforward, load("digits", "test").first(4)
    with pytest.raises(InputError, match="starts from images that can be saved"):
        robustframe.attack(model, data.images, data.labels, "pgd", "linf:0.1 in uint8")
    with pytest.raises(InputError, match="starts from images that can be saved"):
        robustframe.evaluate(model, data, threat="linf:0.1 in uint8", battery="quick", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="unknown kind of valid images 'uint16'"):
        ThreatModel.parse("linf:0.1 in uint16")
    with pytest.raises(InputError, match="holds the clean image alone"):
        ThreatModel.parse("l2:0.0039 in uint8")
    ThreatModel.parse("linf:1/255 in uint8")
    with pytest.raises(InputError, match=r"lie in \[0, 1\]"):
        ThreatModel(norm="l2", eps=1.0, low=-1.0, valid="uint8")


def test_a_stored_image_between_the_steps_is_named_as_that() -> None:
    clean = torch.full((1, 1, 4, 4), 100 / 255)
    image, threat = clean + 0.4 / 255, ThreatModel.parse("linf:0.1 in uint8")
    (found,) = _not_allowed("units", threat, torch.tensor([3]), clean, image, threat.contains(clean, image))
    assert "between the steps of 1/255" in str(found)
