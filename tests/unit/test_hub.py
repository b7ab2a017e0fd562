"""Pairs of the hub, through its own client, from a server on this machine; offline unless a download is asked for."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub, serve

from robustframe.errors import InputError, IntegrityError
from robustframe.models.classifiers import load_models
from robustframe.recipe import ModelSpec
from robustframe.zoo import load_card, load_named

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield running


@pytest.fixture
def files(tiny_card: Path) -> dict[str, bytes]:
    return {name: (tiny_card.parent / name).read_bytes() for name in ("tiny.json", "tiny.safetensors")}


def test_a_pair_is_fetched_only_when_asked_and_then_lies_in_the_cache(
    hub: Hub, files: dict[str, bytes], tiny_card: Path
) -> None:
    hub.commit("owner/repo", "main", {**files, "README.md": b"hello", "deep/other.json": b"{}"})
    with pytest.raises(InputError, match=r"hf:owner/repo is not, or not whole, in the hub's cache.*--download"):
        load_named("hf:owner/repo")
    assert not hub.requests
    pair, card = load_named("hf:owner/repo", download=True)
    assert hub.requests
    assert not [request for request in hub.requests if "README" in request or "deep" in request]
    expected, _ = load_card(tiny_card)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(pair.state_dict()[name], tensor)
    hub.requests.clear()
    again, _ = load_named("hf:owner/repo")
    assert again.state_dict().keys() == pair.state_dict().keys()
    assert not hub.requests
    specs = [ModelSpec(use="hf:owner/repo@main:tiny")]
    (first, second) = load_models(specs, folder=Path(), device=torch.device("cpu"))
    assert (first.entry.name, second.entry.sha256) == ("tiny/feedforward", card.sha256)


def test_a_revision_stays_what_it_was(hub: Hub, files: dict[str, bytes]) -> None:
    old = hub.commit("owner/repo", "v1", files)
    content = json.loads(files["tiny.json"]) | {"about": "a newer one"}
    hub.commit("owner/repo", "main", files | {"tiny.json": json.dumps(content).encode()})
    assert load_named("hf:owner/repo", download=True)[1].about == "a newer one"
    for revision in ("v1", old):
        assert load_named(f"hf:owner/repo@{revision}", download=True)[1].about != "a newer one"
    assert load_named("hf:owner/repo@v1")[1].about != "a newer one"


def test_a_card_is_chosen_by_name_where_there_are_several(hub: Hub, files: dict[str, bytes]) -> None:
    content = json.loads(files["tiny.json"]) | {"name": "other"}
    both = {**files, "other.json": json.dumps(content).encode(), "config.json": b'{"no": "card"}'}
    hub.commit("owner/repo", "main", both)
    with pytest.raises(InputError, match=r"holds 2 cards: other, tiny; name one, such as hf:owner/repo:other"):
        load_named("hf:owner/repo", download=True)
    assert load_named("hf:owner/repo:other", download=True)[1].name == "other"
    assert load_named("hf:owner/repo:other")[1].name == "other"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("owner", "must read hf:OWNER/REPO"),
        ("owner/repo@../../etc", "must read hf:OWNER/REPO"),
        ("../repo", "must read hf:OWNER/REPO"),
        ("owner/repo:../tiny", "must read hf:OWNER/REPO"),
        ("owner/nothing", "could not be fetched: RepositoryNotFoundError"),
        ("owner/repo@v9", "could not be fetched: RevisionNotFoundError"),
        ("owner/repo:nothing", "nothing.json"),
        ("owner/empty", "holds no card of a pair"),
        ("owner/outside", "must be a file name beside the card"),
        ("owner/unfinished", "tiny.safetensors"),
        ("owner/altered", "is not the file its card describes"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(place: str, sentence: str, hub: Hub, files: dict[str, bytes]) -> None:
    outside = json.dumps(json.loads(files["tiny.json"]) | {"weights": "../../../tiny.safetensors"}).encode()
    hub.commit("owner/repo", "main", files)
    hub.commit("owner/empty", "main", {"config.json": b"[]"})
    hub.commit("owner/outside", "main", {"tiny.json": outside})
    hub.commit("owner/unfinished", "main", {"tiny.json": files["tiny.json"]})
    hub.commit("owner/altered", "main", files | {"tiny.safetensors": files["tiny.safetensors"][:-1] + b"x"})
    with pytest.raises(InputError, match=sentence) as caught:
        load_named(f"hf:{place}", download=True)
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_that_is_not_there_is_a_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="could not be fetched"):
        load_named("hf:owner/repo", download=True)


def test_a_hub_that_never_answers_is_not_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustframe.zoo.hub._SECONDS", 0.3)
    hub.speaks.clear()
    start = time.monotonic()
    try:
        with pytest.raises(InputError, match=r"could not be fetched: .*[tT]ime"):
            load_named("hf:owner/repo", download=True)
        assert time.monotonic() - start < 20
    finally:
        hub.speaks.set()


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        ({"commits": "../../../climbed"}, r"answers with '\.\./\.\./\.\./climbed', which is not a commit"),
        ({"tag": "../../../climbed"}, "says of tiny.json what would lead out of its cache"),
        ({}, "holds no card of a pair: 0 files"),
    ],
)
def test_a_hub_whose_answers_climb_leaves_nothing_behind(
    lie: dict[str, str], sentence: str, hub: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.commit(
        "owner/repo", "main", files if lie else {f"../../../climbed/{name}": each for name, each in files.items()}
    )
    for name, said in lie.items():
        setattr(hub, name, said)
    with pytest.raises(IntegrityError, match=sentence):
        load_named("hf:owner/repo", download=True)
    assert not [path for path in tmp_path.rglob("*") if "climbed" in path.name or path.suffix == ".json"]


def test_a_link_in_the_cache_leads_nowhere_else(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.commit("owner/repo", "main", files)
    load_named("hf:owner/repo", download=True)
    (weights,) = (tmp_path / "cache").glob("models--owner--repo/snapshots/*/tiny.safetensors")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(files["tiny.safetensors"])
    weights.unlink()
    weights.symlink_to(elsewhere)
    with pytest.raises(IntegrityError, match="leads out of"):
        load_named("hf:owner/repo")


def test_without_the_extra_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'robustframe\[hub\]'"):
        load_named("hf:owner/repo")


@pytest.mark.slow
def test_the_command_line_takes_the_hub(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.commit("owner/repo", "main", files)
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    for words, status in ((["show"], 2), (["show", "--download"], 0), (["check"], 0)):
        command = [sys.executable, "-m", "robustframe", "zoo", words[0], "hf:owner/repo", *words[1:]]
        run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert run.returncode == status, run.stderr
        assert ("tiny" in run.stdout or "% at 3 sweeps" in run.stdout) == (status == 0)
