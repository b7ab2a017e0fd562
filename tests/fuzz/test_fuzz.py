"""Thousands of hostile files: each is read, or refused in a sentence; never a crash, a hang or a file outside."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BATTERY, PAIR, RECIPE, TARGETS, Failed, Readers, guarded, lay_out, make_valid, seed
from hypothesis import HealthCheck, Phase, given, settings
from mutations import hostile

from robustframe.errors import InputError

TIMES = int(os.environ.get("FUZZ", "0"))
"""0: the cases of CI, the same each time. Above: so many times as many, drawn anew."""
CASES = {
    "card": 500, "weights": 500, "recipe": 500, "battery": 500, "training": 300, "record": 100, "verdicts": 100,
    "unit": 40, "images": 40, "manifest": 40, "npz": 200, "arrays": 200, "image-png": 60, "image-tiff": 60,
    "image-jpg": 40, "image-webp": 40, "image-bmp": 40, "idx": 100, "checkpoint": 200, "tensors": 200,
}  # fmt: skip
STATED = {"recipe": RECIPE, "battery": BATTERY, "training": PAIR}


@pytest.fixture(scope="session")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture(scope="session")
def readers(valid: Path) -> Iterator[Readers]:
    """A child process that reads; one for all kinds, as its start takes longer than most of them."""
    found = Readers(valid)
    yield found
    found.close()


@pytest.mark.parametrize("target", TARGETS)
def test_the_valid_file_is_read(target: str, valid: Path) -> None:
    attempt_strictly(valid, target, seed(valid, target))


def attempt_strictly(valid: Path, target: str, content: bytes) -> None:
    """As `harness.attempt`, but the file must be read: a target that refuses everything would find nothing."""
    with tempfile.TemporaryDirectory() as parent:
        TARGETS[target][1](lay_out(valid, target, Path(parent)), content)


def test_ci_tries_a_thousand_files_of_all_kinds() -> None:
    assert CASES.keys() == TARGETS.keys()
    assert sum(CASES.values()) >= 1000


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_files_are_read_or_refused_in_a_sentence(target: str, valid: Path, readers: Readers) -> None:
    @settings(
        max_examples=CASES[target] * max(TIMES, 1),
        derandomize=not TIMES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if TIMES else [Phase.generate],
    )
    @given(content=hostile(target, seed(valid, target), STATED.get(target)))
    def run(content: bytes) -> None:
        readers.call("attempt", target, content)

    run()


def test_the_harness_lets_nothing_but_sentences_pass() -> None:
    with pytest.raises(ZeroDivisionError), guarded():
        raise ZeroDivisionError
    with pytest.raises(Failed, match="too much memory"), guarded():
        bytearray(2**33)
    with pytest.raises(Failed, match="no sentence"), guarded():
        raise InputError("")
    with guarded():
        raise InputError("this is one")


def test_what_does_not_listen_ends_with_its_process_and_the_next_case_has_another(readers: Readers) -> None:
    with pytest.raises(Failed, match="its process was ended by SIGXCPU"):
        readers.call("spin", 1)
    with pytest.raises(Failed, match="KeyError: 'no kind'"):
        readers.call("attempt", "no kind", b"")
