"""The report on a frame: for pairs and architectures, as text, JSON and picture, and what it says to bad input."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from robustframe.cli import app
from robustframe.errors import InputError
from robustframe.frames import build_frame, mutual_coherence
from robustframe.frames.architectures import architecture, architectures
from robustframe.frames.coherence import coherence
from robustframe.report.frame import find_frame, frame_report
from robustframe.report.frame_text import block_picture, render_frame
from robustframe.zoo import ZOO, load_card, read_card

SMALL = [name for name in architectures() if name.endswith("-8")]


def test_the_report_on_a_pair_says_what_its_frame_is(tiny_card: Path) -> None:
    report = frame_report(f"card:{tiny_card}", images=5)
    pair, card = load_card(tiny_card)
    assert report.name == card.name
    assert report.coherence == coherence(pair.frame)
    assert report.babel is not None
    assert report.babel[0] == pytest.approx(report.coherence.mutual)
    assert report.minimum is not None
    assert report.minimum.method == "closed form"
    assert report.minimum.value < report.coherence.deep_frame_potential
    assert report.parameters == sum(parameter.numel() for parameter in pair.frame.parameters())
    assert [layer.code_shape for layer in report.layers] == [(48,), (24,)]
    for layer, block in zip(report.layers, pair.frame.blocks):
        exact = float(torch.linalg.matrix_norm(block.operator.weight.detach(), 2))
        assert layer.norm == pytest.approx(exact, rel=1e-3)


def test_the_solver_on_test_images_converges(tiny_card: Path) -> None:
    report = frame_report(f"card:{tiny_card}", images=5)
    assert report.images == "5 test images of digits"
    objectives = [sweep.objective for sweep in report.sweeps]
    assert objectives == sorted(objectives, reverse=True)
    changes = [sweep.change for sweep in report.sweeps]
    assert changes[0] is None
    assert changes[-1] is not None
    assert changes[1] is not None
    assert changes[-1] < changes[1]
    assert all(0 <= share <= 1 for sweep in report.sweeps for share in sweep.active)
    assert 0 < report.sweeps[0].active[0] < 1


@pytest.mark.parametrize("name", [*SMALL, "fc-20-10"])
def test_small_architectures_by_name(name: str) -> None:
    report = frame_report(name)
    frame = find_frame(name).frame
    text = render_frame(report, frame)
    assert report.sweeps == ()
    assert report.coherence.mutual == pytest.approx(mutual_coherence(frame))
    assert f"{report.coherence.mutual:.6f}" in text
    assert max(len(line) for line in text.splitlines()) <= 120
    # Of a layer alone, without the identities beside its atoms, and so never below the least that is possible.
    assert all((layer.bound or 0) - 1e-9 <= layer.coherence <= 1 for layer in report.layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in architectures() if name not in SMALL and "W1" not in name])
def test_every_architecture_by_name(name: str) -> None:
    frame = architecture(name)
    assert render_frame(frame_report(name), frame).startswith(f"{name}: ")


def test_an_untied_net_has_no_one_frame() -> None:
    with pytest.raises(InputError, match="a frame of its own in every sweep"):
        frame_report("zoo:fmnist-chain3-16-untied")


# Every structure, pursuit and size; `zoo check` looks at all of them.
SOME = ["digits-fc2-8", "fmnist-chain3-linf", "fmnist-residual5-16", "fmnist-dense7-6", "fmnist-chain3-16-layered"]


@pytest.mark.parametrize("name", SOME)
def test_zoo_pairs(name: str) -> None:
    report = frame_report(f"zoo:{name}", images=2)
    assert report.coherence.mutual == pytest.approx(read_card(ZOO / f"{name}.json").mutual_coherence, abs=1e-5)


def test_the_command_prints_text_json_and_a_picture(tiny_card: Path, tmp_path: Path) -> None:
    run = CliRunner()
    plain = run.invoke(app, ["frame", f"card:{tiny_card}"])
    assert plain.exit_code == 0
    assert "mutual coherence" in plain.stdout
    assert "[  B1   . ]" in plain.stdout
    assert "[  -I  B2 ]" in plain.stdout
    file = tmp_path / "gram.png"
    read = run.invoke(app, ["frame", f"card:{tiny_card}", "--json", "--plot", str(file)])
    content = json.loads(read.stdout)
    assert content["coherence"]["nonzeros"] == 72 * 71
    assert content["minimum"]["converged"] is True
    assert len(content["sweeps"]) == 10
    with Image.open(file) as picture:
        assert picture.format == "PNG"


def test_the_minimum_is_optimised_when_asked() -> None:
    assert frame_report("resnet8-8").minimum is None
    torch.manual_seed(0)
    closed = frame_report("fc-20-10", minimum=True).minimum
    assert closed is not None
    assert closed.method == "closed form"


def test_block_pictures_show_skips_and_concatenations() -> None:
    torch.manual_seed(0)
    residual = build_frame((4,), [{"atoms": 6}] * 3, "residual")
    assert "[  -S  -I  D3 ]" in block_picture(residual)
    dense = build_frame((4,), [{"atoms": 6}] * 3, "dense")
    assert "[  -I  -I  B3 ]" in block_picture(dense)
    deep = build_frame((4,), [{"atoms": 4}] * 14, "residual")
    assert "[s-D........... ]" in block_picture(deep)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet2", "unknown model or architecture 'resnet2'; did you mean 'resnet"),
        ("zoo:fmnist-chain", "unknown zoo pair"),
        ("zou:x", "unknown kind of model 'zou'; did you mean 'zoo'"),
        ("card:nowhere.json", "cannot be read"),
    ],
)
def test_unknown_names_get_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        frame_report(name)


def test_a_plot_needs_a_file_that_can_be_written(tmp_path: Path) -> None:
    for name, sentence in (("a.gif", "ends in .svg, .pdf, .png, not 'a.gif'"), ("no/a.png", "is not there; make it")):
        failed = CliRunner().invoke(app, ["frame", "fc-20-10", "--plot", str(tmp_path / name)])
        assert isinstance(failed.exception, InputError)
        assert sentence in str(failed.exception)
