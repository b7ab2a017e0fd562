"""Weights from files of all kinds: which of several, by which names, and what is no file of weights at all."""

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustframe.errors import InputError
from robustframe.models.classifiers import load_models
from robustframe.models.weights import load_weights, weights_file
from robustframe.recipe import ModelSpec


def net(value: float = 0.0) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3), nn.BatchNorm1d(3))
    nn.init.constant_(model.get_parameter("1.bias"), value)
    return model


def state(value: float) -> dict[str, Any]:
    return dict(net(value).state_dict())


def loaded(held: Any, tmp_path: Path, wanted: str | None = None) -> float:
    """Load a checkpoint, and return the value by which its weights can be told."""
    model = net()
    torch.save(held, tmp_path / "x.pt")
    load_weights(model, tmp_path / "x.pt", wanted)
    return model.get_parameter("1.bias")[0].item()


def before(prefix: str, held: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in held.items()}


OPTIMISER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
SEVERAL = {"model": state(1), "ema": {"state_dict": state(2)}, "epoch": 3, "optimizer": OPTIMISER}
AVERAGE = {"n_averaged": torch.tensor(3), **before("module.", state(2))}


@pytest.mark.parametrize(
    ("held", "listed"),
    [
        (SEVERAL, "model, ema.state_dict"),
        ({"a": state(1), "b": [state(2), state(3)]}, "a, b.0, b.1"),
        ({"net": before("module.", state(1)), "average": AVERAGE}, "net, average"),
        ({1: state(1), 2: state(2)}, "1, 2"),
        ({f"epoch {at}": state(at) for at in range(9)}, "epoch 3, epoch 4, epoch 5 and 3 more"),
    ],
)
def test_several_weights_that_fit_are_listed_and_none_is_taken(held: Any, listed: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds several weights that fit the model") as refused:
        loaded(held, tmp_path)
    assert f"{listed}; choose one, such as weights = " in str(refused.value)


def test_what_a_recipe_chooses_is_loaded_and_makes_another_model(tmp_path: Path) -> None:
    assert loaded(SEVERAL, tmp_path, "model") == 1
    assert loaded(SEVERAL, tmp_path, "ema.state_dict") == 2
    with pytest.raises(InputError, match=r"unknown weights 'eam'.*known: ema.state_dict, model"):
        loaded(SEVERAL, tmp_path, "eam")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(9, 3), nn.BatchNorm1d(3))\n"
    )
    first, second = load_models(
        [
            ModelSpec(use="file:mine.py:build", name=keys, weights=f"x.pt:{keys}")
            for keys in ("model", "ema.state_dict")
        ],
        folder=tmp_path,
        device=torch.device("cpu"),
    )
    assert first.entry.weights_sha256 == second.entry.weights_sha256
    assert first.entry.sha256 != second.entry.sha256


def test_a_file_whose_own_name_has_a_colon_is_that_file(tmp_path: Path) -> None:
    assert weights_file(tmp_path, "x.pt:ema") == (tmp_path / "x.pt:ema", None)
    (tmp_path / "x.pt").touch()
    assert weights_file(tmp_path, "x.pt:ema.net") == (tmp_path / "x.pt", "ema.net")
    (tmp_path / "x.pt:ema").touch()
    assert weights_file(tmp_path, "x.pt:ema") == (tmp_path / "x.pt:ema", None)
    assert weights_file(tmp_path, "x.pt:ema:net") == (tmp_path / "x.pt:ema", "net")


@pytest.mark.parametrize(
    "held",
    [
        {"anything": state(2), "other": {"1.weight": torch.ones(3, 9)}},
        {"model": {"state_dict": state(2)}, "optimizer": OPTIMISER},
        {"average": AVERAGE},
        before("module.", state(2)),
        before("_orig_mod.module.", state(2)),
        before("module._orig_mod.model.", state(2)),
        before("model.module.", state(2)),
        {**state(2), "1._extra_state": None},
        {name: tensor for name, tensor in state(2).items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_the_only_weights_that_fit_are_loaded_whatever_stands_before_their_names(held: Any, tmp_path: Path) -> None:
    assert loaded(held, tmp_path) == 2


def test_a_prefix_that_the_model_has_itself_stays(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = net()
            self.register_buffer("mean", torch.zeros(1))

    for prefix in ("", "module.", "_orig_mod.module."):
        model = Wrapped()
        torch.save(before(prefix, {"mean": torch.ones(1), **before("model.", state(2))}), tmp_path / "x.pt")
        load_weights(model, tmp_path / "x.pt")
        assert model.get_parameter("model.1.bias")[0].item() == 2
    torch.save(before("module.", before("model.", state(2))), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"it lacks mean$"):
        load_weights(Wrapped(), tmp_path / "x.pt")


def test_a_prefix_of_some_names_only_is_not_taken_off(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it lacks 1\.bias; it has module\.1\.bias"):
        loaded({("module." if name == "1.bias" else "") + name: each for name, each in state(2).items()}, tmp_path)


def test_what_fits_under_a_name_of_its_own_is_said_and_can_be_chosen(tmp_path: Path) -> None:
    held = {**before("net.", state(1)), **before("ema.", state(2)), "loss.weight": torch.ones(3)}
    with pytest.raises(InputError, match=r"as a whole does not fit .*: net, ema; choose one, such as weights = "):
        loaded(held, tmp_path)
    assert loaded(held, tmp_path, "ema") == 2
    assert loaded({"state_dict": held}, tmp_path, "state_dict.net") == 1


def test_of_several_none_of_which_fits_the_nearest_is_compared(tmp_path: Path) -> None:
    held = {"far": {"x": torch.ones(1)}, "near": {**state(1), "1.bias": torch.ones(5)}}
    with pytest.raises(InputError, match=r"x\.pt:near does not fit .*1\.bias is \(5,\) there.*; also there: far"):
        loaded(held, tmp_path)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.other.weight = self.one.weight


def test_tied_weights_need_one_of_their_names_and_no_two_values(tmp_path: Path) -> None:
    ones = torch.ones(3, 3)
    for held in ({"one.weight": ones}, {"other.weight": ones}, {"one.weight": ones, "other.weight": ones.clone()}):
        model = Tied()
        save_file(held, tmp_path / "x.safetensors")
        load_weights(model, tmp_path / "x.safetensors")
        assert model.one.weight is model.other.weight
        assert torch.equal(model.one.weight, ones)
    save_file({"one.weight": ones, "other.weight": 2 * ones}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"one\.weight and other\.weight are one tensor in the model and two there"):
        load_weights(Tied(), tmp_path / "x.safetensors")


class Scaled(nn.Linear):
    """A layer that keeps a number beside its tensors."""

    scale = 1.0

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.scale)

    def set_extra_state(self, state: Any) -> None:
        self.scale = float(state)


def test_what_layers_keep_beside_their_tensors_is_taken_as_a_tensor_and_refused_as_anything_else(
    tmp_path: Path,
) -> None:
    held = Scaled(3, 3).state_dict() | {"_extra_state": torch.tensor(2.0)}
    torch.save(held, tmp_path / "x.pt")
    model = Scaled(3, 3)
    load_weights(model, tmp_path / "x.pt")
    assert model.scale == 2
    torch.save(held | {"_extra_state": {"scale": 2.0}}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="_extra_state is a dict; only None and tensors are taken"):
        load_weights(model, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"it has 1\._extra_state, which the model does not"):
        loaded({**state(1), "1._extra_state": torch.ones(1)}, tmp_path)


def packed(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def write_one(path: Path) -> None:
        other = path.with_suffix(".txt")
        other.write_text("something")
        with zipfile.ZipFile(path, "w") if write is zipfile.ZipFile else tarfile.open(path, "w") as archive:
            (archive.write if isinstance(archive, zipfile.ZipFile) else archive.add)(other, "a.txt")

    return write_one


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            lambda path: path.write_text("\n<!DOCTYPE html><p>Sign in"),
            "is an HTML page, not weights: download it again",
        ),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "is a Git LFS pointer"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text(json.dumps({"weight_map": {"1.bias": 1}})), "is a JSON file"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(30)), "is a gzip archive"),
        (packed(tarfile.TarFile.open), "is a tar archive"),
    ],
)
def test_a_file_that_holds_no_weights_is_called_what_it_is(
    write: Callable[[Path], Any], sentence: str, name: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=sentence):
        load_weights(net(), tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_archives_that_torch_did_not_save_weights_in_are_called_what_they_are(tmp_path: Path) -> None:
    packed(zipfile.ZipFile)(tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt is a zip archive, not weights"):
        load_weights(net(), tmp_path / "x.pt")
    torch.jit.save(torch.jit.trace(net().eval(), torch.ones(2, 9)), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt is a TorchScript program, not weights"):
        load_weights(net(), tmp_path / "x.pt")


def test_safetensors_are_read_under_any_name(tmp_path: Path) -> None:
    save_file(before("module.", state(2)), tmp_path / "x.bin")
    model = net()
    load_weights(model, tmp_path / "x.bin")
    assert model.get_parameter("1.bias")[0].item() == 2


def test_a_checkpoint_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    held: dict[str, Any] = {"model": state(2)}
    held["whole"] = held
    held["list"] = [held]
    assert loaded(held, tmp_path) == 2


def test_a_checkpoint_of_hostile_shape_is_refused_in_a_sentence(tmp_path: Path) -> None:
    deep: Any = state(1)
    for _ in range(150):
        deep = [deep]
    for held, sentence in (
        (deep, r"holds no state dict \(list\)"),
        ([state(1)] * 2000, "holds more than 1,000 dicts of tensors"),
    ):
        with pytest.raises(InputError, match=sentence):
            loaded(held, tmp_path)


def test_a_model_that_does_not_know_its_sizes_yet_takes_no_weights(tmp_path: Path) -> None:
    torch.save(state(1), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"the model has no 1\.weight yet; call it on one image first"):
        load_weights(nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.BatchNorm1d(3)), tmp_path / "x.pt")


def test_what_loading_itself_refuses_is_said(tmp_path: Path) -> None:
    class Counts(nn.Module):
        """Has a counter of the name of batch normalisation's, which loading does not begin at 0."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))
            self.bias = nn.Parameter(torch.zeros(3))

    torch.save({"bias": torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt does not fit the model: .*Counts"):
        load_weights(Counts(), tmp_path / "x.pt")
