"""Every kind of file that may be damaged, hostile or too much: read, or refused in the sentence that it must get."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file
from torch import nn

from robustframe.data.own import from_file, from_folder
from robustframe.errors import InputError
from robustframe.files import decoding, gunzip, parse_safetensors, read_toml_tables
from robustframe.models.classifiers import classify
from robustframe.models.weights import load_weights
from robustframe.recipe import Battery, ModelSpec, Recipe, find_recipe, read_toml
from robustframe.runs import open_run
from robustframe.zoo import read_card

IMAGES, LABELS = np.random.default_rng(0).random((4, 1, 3, 3), "f4"), np.arange(4)


def npz(**members: bytes) -> bytes:
    """An npz file of arrays, some of them in other bytes."""
    out = io.BytesIO()
    np.savez_compressed(out, images=IMAGES, labels=LABELS)
    kept = {each: zipfile.ZipFile(out).read(f"{each}.npy") for each in ("images", "labels")}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (kept | members).items():
            archive.writestr(f"{name}.npy", content)
    return packed.getvalue()


def npy(shape: tuple[int, ...], data: bytes, kind: str = "<f4") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npz()[:-40], "is damaged or not an npz file"),
        (npz()[:100] + b"\xff" * 30 + npz()[130:], "is damaged or not an npz file"),
        (npz(images=b"no array"), "is damaged or not an npz file"),
        (npz(images=npy((10**6, 1000), b"")), "images.npy states 4,000,000,000 bytes of numbers, but has 128"),
        (npz(images=npy((2**62, 8), b"")), "bytes of numbers, but has"),
        (npz(images=npy((4,), b"\0" * 32, "|O")), "is damaged or not an npz file of plain arrays"),
        (b"", "is damaged or not an npz file"),
    ],
)
def test_a_damaged_npz_is_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        from_file(tmp_path / "d.npz", name="d")


def test_a_bomb_in_an_npz_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(npz(images=npy((2**27 // 9, 1, 3, 3), b"\0" * (2**27 // 9 * 36))))
    with pytest.raises(InputError, match=r"images.npy unpacks to 536,\d+,\d+ bytes; .* at most 268,435,456 are taken"):
        from_file(tmp_path / "d.npz", name="d")


@pytest.mark.parametrize("kind", ["u2", "u4", "u8"])
def test_arrays_come_back_whatever_whole_numbers_the_labels_are(kind: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=IMAGES, labels=LABELS.astype(kind))
    assert from_file(tmp_path / "d.npz", name="d").labels.tolist() == LABELS.tolist()


def test_narrow_floats_in_safetensors_are_taken_or_named(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    images, labels = torch.tensor(IMAGES), torch.tensor(LABELS)
    save_file({"images": images.bfloat16(), "labels": labels}, path)
    assert torch.equal(from_file(path, name="d").images, images.bfloat16().float())
    save_file({"images": images.to(torch.float8_e4m3fn), "labels": labels}, path)
    with pytest.raises(InputError, match="images are float8_e4m3fn; store images as uint8 or float32"):
        from_file(path, name="d")


@pytest.mark.parametrize("name", ["d.npz", "d.safetensors"])
def test_what_is_no_plain_file_holds_no_data(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="it is not a plain file"):
        from_file(tmp_path / name, name="d")


def png(width: int, height: int) -> bytes:
    """A small PNG file that states a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (png(10_000, 10_000), r"is 10,000 x 10,000; an image of at most 67,108,864 pixels is taken"),
        (png(60_000, 60_000), "is damaged or not an image .*pixels"),
        (png(90, 90)[:60], "is damaged or not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is damaged or not an image"),
    ],
)
def test_an_image_that_is_none_or_a_bomb_is_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        from_folder(tmp_path, name="d")


def test_an_image_that_is_a_pipe_does_not_wait(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "0.png")
    with pytest.raises(InputError, match="not a plain file"):
        from_folder(tmp_path, name="d")


def test_a_whole_disk_is_no_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustframe.data.listing._OTHERS", 20)
    (tmp_path / "a").mkdir()
    Image.new("L", (3, 3)).save(tmp_path / "a" / "0.png")
    for at in range(30):
        (tmp_path / "a" / f"{at}.txt").touch()
    with pytest.raises(InputError, match="is not a folder of images: it holds at least 1 of them and 30 other files"):
        from_folder(tmp_path, name="d")


def test_gzip_is_undone_as_far_as_a_limit() -> None:
    assert gunzip(gzip.compress(b"abc"), "x.gz", limit=3) == b"abc"
    with pytest.raises(InputError, match=r"x\.gz unpacks to more than 1,000 bytes"):
        gunzip(gzip.compress(bytes(10**8)), "x.gz", limit=1000)


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3), nn.BatchNorm1d(3))


def state(**other: Any) -> dict[str, Any]:
    return {**net().state_dict(), **{name.replace("_", "."): value for name, value in other.items()}}


WEIGHT, BIAS = torch.ones(3, 9), torch.ones(3)


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (state(**{"1_bias": BIAS.long()}), "1.bias is int64 there and float32 in the model"),
        (state(**{"1_bias": BIAS.bool()}), "1.bias is bool there"),
        (state(**{"1_bias": BIAS.to(torch.complex64)}), "1.bias is complex64 there"),
        (state(**{"1_bias": BIAS.to(torch.float8_e4m3fn)}), "1.bias is float8_e4m3fn there"),
        (state(**{"1_weight": WEIGHT.to_sparse()}), "1.weight is sparse coo float32 there"),
        (state(**{"1_weight": WEIGHT.to("meta")}), "1.weight is float32 without values there"),
        (state(**{"1_weight": WEIGHT.double() * 1e300}), "1.weight holds NaN or infinity"),
        ({**state(), "2.num_batches_tracked": torch.ones(())}, "2.num_batches_tracked is float32 there and int64"),
    ],
)
def test_weights_of_another_kind_are_named_and_not_converted(held: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(InputError, match=sentence):
        load_weights(net(), tmp_path / "w.pth")


def test_weights_of_other_float_types_and_of_old_checkpoints_are_taken(tmp_path: Path) -> None:
    held = {name: tensor.double() for name, tensor in net().state_dict().items() if tensor.is_floating_point()}
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    model = net()
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.state_dict()["1.weight"].double(), held["1.weight"])


def test_a_packed_archive_of_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"1.weight": torch.zeros(10**6)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as plain, zipfile.ZipFile(tmp_path / "p.pth", "w", 8) as packed:
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    with pytest.raises(InputError, match="packed archive"):
        load_weights(net(), tmp_path / "p.pth")


@pytest.mark.parametrize("path", ["/dev/zero", "pipe", "nowhere"])
def test_weights_are_read_from_plain_files_only(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"the weights file .* cannot be read"):
        load_weights(net(), tmp_path / path)


class Described(nn.Linear):
    """A layer that keeps an object beside its tensors."""

    def get_extra_state(self) -> object:
        return {"scale": 1.0}


def test_a_model_whose_weights_cannot_be_read_is_refused() -> None:
    for model, sentence in (
        (Described(3, 3), "holds _extra_state, whose numbers"),
        (nn.LazyLinear(3), "has no weight"),
    ):
        with pytest.raises(InputError, match=sentence):
            classify(model, "mine", ModelSpec(use="mine"))


def test_a_safetensors_file_that_claims_a_long_header_is_refused() -> None:
    whole = save({"a": torch.ones(3)})
    assert parse_safetensors(whole, "x")["a"].tolist() == [1, 1, 1]
    for content in (b"", whole[:4], whole[:-3], (2**40).to_bytes(8, "little") + whole[8:], b"\xff" * 99):
        with pytest.raises(InputError, match=r"x is (damaged or )?not a safetensors file"):
            parse_safetensors(content, "x")


RECIPE = 'schema = 1\nname = "a"\nseed = 0\nthreats = ["linf:0.1"]\nbattery = ["quick"]\n[data]\nuse = "digits"\n'
MODEL = '[[model]]\nuse = "zoo:x"\n'
BATTERY = 'schema = 1\nname = "a"\nversion = "1"\n'


@pytest.mark.parametrize(
    ("text", "model", "sentence"),
    [
        ("a." * 50_000 + "a = 1", Recipe, "has a key of more than 32 parts"),
        ("['a'" + " . 'a'" * 5_000 + "]", Recipe, "has a key of more than 32 parts"),
        (RECIPE + "count = nan\n" + MODEL, Recipe, "data.count = nan is not a finite number"),
        (
            BATTERY + '[[attack]]\nuse = "pgd"\nstep_size = inf\n',
            Battery,
            r"attack\[1\].step_size = inf is not a finite",
        ),
        (BATTERY + '[[attack]]\nuse = "pgd"\n' * 40_000, Battery, "at most 200 items"),
        (RECIPE.replace('["linf', "[" + '"l2:1",' * 50_000 + '"linf') + MODEL, Recipe, "at most 100 items"),
        (RECIPE + MODEL + "sweeps = 1000000000000\n", Recipe, r"sweeps = 1000000000000: .*10000"),
        (RECIPE + MODEL + "classes = 1000000\n", Recipe, r"classes = 1000000: .*65536"),
        (RECIPE + MODEL.replace("x", "x" * 3000), Recipe, r"use = 'zoo:xx.*\.\.\.: .* at most 1000"),
    ],
)
def test_a_recipe_that_asks_for_too_much_is_a_sentence(text: str, model: Any, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        read_toml(tmp_path / "r.toml", model)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("edit", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("key", ["mutual_coherence", "seed"])
def test_a_card_with_a_number_that_is_none_is_refused(edit: str, key: str, tiny_card: Path, tmp_path: Path) -> None:
    text = tiny_card.read_text()
    # The last is the recipe's own, which holds anything.
    at = text.rindex(f'"{key}": ', 0, None if key == "mutual_coherence" else text.index("made_with")) + len(key) + 4
    (tmp_path / "c.json").write_text(text[:at] + edit + text[text.index(",", at) :])
    with pytest.raises(InputError, match=key):
        read_card(tmp_path / "c.json")


@pytest.mark.parametrize("read", [find_recipe, open_run, lambda name: from_folder(Path(name), name="x")])
@pytest.mark.parametrize("name", ["x" * 3000, "x/" * 2000, "a\0b"])
def test_a_name_of_any_length_is_a_sentence(read: Callable[[str], object], name: str) -> None:
    with pytest.raises(InputError):
        read(name)


def test_whatever_a_decoder_raises_is_one_sentence() -> None:
    for error in (KeyError("k"), struct.error("s"), RecursionError(), zlib.error("z"), OverflowError("o")):
        with pytest.raises(InputError, match="x is damaged or not a thing") as caught, decoding("x", "a thing"):
            raise error
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="more memory"), decoding("x", "a thing"):
        raise MemoryError
    with pytest.raises(KeyboardInterrupt), decoding("x", "a thing"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("number", ["0x1" + "0" * 16, "-9223372036854775809", "0x" + "f" * 5000])
def test_a_whole_number_beyond_64_bits_is_refused_in_a_sentence(number: str, tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(f"[[attack]]\nuse = 'pgd'\nsteps = {number}\n")
    with pytest.raises(InputError, match=r"attack.*steps is a whole number beyond 64 bits"):
        read_toml_tables(path)
