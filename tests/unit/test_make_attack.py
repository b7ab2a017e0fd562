"""What a battery says becomes an attack, or an error that says what is wrong and what would be right."""

import dataclasses
import sys

import pytest

from robustframe.attacks import APGD, ATTACKS, Square, TorchAttack, make_attack
from robustframe.errors import InputError

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from robustframe.attacks import Attack

@dataclass(frozen=True, kw_only=True)
class Twice(Attack):
    strength: float
    steps: int = 3
    label: str | None = None

    def perturb(self, probe, x, threat, draws):
        return x + self.strength

class NoAttack:
    pass
"""


@pytest.mark.parametrize("use", list(ATTACKS))
def test_every_name_builds_its_attack_with_the_defaults(use):
    assert make_attack(use, {}) == ATTACKS[use]()


def test_settings_arrive_with_the_types_of_the_fields():
    attack = make_attack("apgd", {"steps": 7, "loss": "dlr", "rho": 1})
    assert attack == APGD(steps=7, loss="dlr", rho=1.0)
    assert isinstance(attack.rho, float)
    assert make_attack("square", {"resc_schedule": True}) == Square(resc_schedule=True)


@pytest.mark.parametrize(
    ("use", "settings", "words"),
    [
        ("apdg", {}, r"unknown attack 'apdg'; did you mean 'apgd'\?"),
        ("apgd", {"step": 3}, r"unknown setting of APGD 'step'; did you mean 'steps'\?"),
        ("apgd", {"steps": 2.5}, "APGD: steps = 2.5 must be a whole number"),
        ("apgd", {"steps": True}, "APGD: steps = True must be a whole number"),
        ("apgd", {"steps": "7"}, "APGD: steps = '7' must be a whole number"),
        ("apgd", {"steps": 0}, "APGD: steps = 0 must be above 0"),
        ("apgd", {"restarts": -1}, "APGD: restarts = -1 must be above 0"),
        ("apgd", {"rho": True}, "APGD: rho = True must be a finite number"),
        ("pgd", {"step_size": float("inf")}, "PGD: step_size = inf must be a finite number"),
        ("pgd", {"step_size": float("nan")}, "PGD: step_size = nan must be a finite number"),
        ("pgd", {"step_size": -0.1}, "PGD: step_size = -0.1 must be above 0"),
        (
            "apgd",
            {"loss": "hinge"},
            "APGD: loss = 'hinge' must be one of 'cross_entropy', 'margin', 'probability_margin' or 'dlr' or a "
            "function",
        ),
        ("apgd", {"through": 3}, "APGD: through = 3 must be text or a function"),
        ("apgd", {"bpda": {"0": "identity", "1": "none"}}, "APGD: bpda.1 = 'none' must be one of 'identity' or a fun"),
        ("apgd", {"bpda": "identity"}, "APGD: bpda = 'identity' must be a table of names"),
        ("apgd", {"steps": 2**63}, "APGD: steps = 9223372036854775808 must be smaller than"),
        ("apgd", {"rho": 1e300}, r"APGD: rho = 1e\+300 must be smaller than"),
        ("apgd-t", {"targets": 0}, "APGDT: targets = 0 must be above 0"),
        ("square", {"resc_schedule": 1}, "Square: resc_schedule = 1 must be true or false"),
        ("square", {"queries": [1]}, r"Square: queries = \[1\] must be a whole number"),
        ("file:nowhere.py:Mine", {}, "attack file .*nowhere.py does not exist"),
        ("file:Mine", {}, "must read 'file:PATH.py:NAME'"),
    ],
)
def test_what_is_wrong_is_said_behind_the_place_where_it_stood(use, settings, words):
    with pytest.raises(InputError, match=words) as caught:
        make_attack(use, settings, where="b.toml, attack 2")
    assert str(caught.value).startswith("b.toml, attack 2: ")
    assert str(caught.value).count("\n") <= 1


def test_an_attack_of_the_user_is_loaded_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    attack = make_attack("file:mine.py:Twice", {"strength": 1, "label": "a"}, folder=tmp_path)
    assert dataclasses.asdict(attack) == {"strength": 1.0, "steps": 3, "label": "a"}
    assert type(attack).__name__ == "Twice"
    for settings, words in (
        ({}, "Twice needs strength"),
        ({"strength": 1, "label": 3}, "label = 3 must be text or left out"),
        ({"strength": 1, "steps": 0}, "steps = 0 must be above 0"),
    ):
        with pytest.raises(InputError, match=words):
            make_attack("file:mine.py:Twice", settings, folder=tmp_path)
    with pytest.raises(InputError, match="did you mean 'Twice'"):
        make_attack("file:mine.py:Twise", {}, folder=tmp_path)
    with pytest.raises(InputError, match=r"unknown attack in .* 'NoAttack'"):
        make_attack("file:mine.py:NoAttack", {}, folder=tmp_path)


def test_a_file_that_does_not_load_is_an_input_error(tmp_path):
    (tmp_path / "bad.py").write_text("import nothing_of_that_name")
    with pytest.raises(InputError, match="does not load: ModuleNotFoundError"):
        make_attack("file:bad.py:Mine", {}, folder=tmp_path)
    (tmp_path / "bad.txt").write_text("")
    with pytest.raises(InputError, match="must end in"):
        make_attack("file:bad.txt:Mine", {}, folder=tmp_path)


def test_a_torchattack_is_hashable_comparable_and_recordable():
    pytest.importorskip("torchattacks")
    attack = make_attack("torchattacks:MIFGSM", {"steps": 3, "decay": 1.0, "step_size": 0.1})
    assert attack == TorchAttack(name="MIFGSM", settings={"decay": 1.0, "steps": 3, "step_size": 0.1})
    assert hash(attack) == hash(make_attack("torchattacks:MIFGSM", {"step_size": 0.1, "decay": 1.0, "steps": 3}))
    assert dataclasses.asdict(attack) == {
        "name": "MIFGSM",
        "settings": (("decay", 1.0), ("step_size", 0.1), ("steps", 3)),
    }


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("MIFGMS", {}, r"unknown class of torchattacks 'MIFGMS'; did you mean 'MIFGSM'\?"),
        ("AutoAttack", {}, "AutoAttack is not run: its members run 10 steps in place of 100"),
        ("MultiAttack", {}, "MultiAttack is not run: it wraps other attacks"),
        ("LGV", {}, "LGV is not run"),
        ("OnePixel", {}, "take sigma-zero"),
        ("MIFGSM", {"stepz": 3}, r"unknown setting of torchattacks:MIFGSM 'stepz'; did you mean 'steps'\?"),
        ("MIFGSM", {"eps": 0.1}, "eps cannot be set; eps comes from the threat"),
        ("FAB", {"seed": 1}, "seed cannot be set"),
        ("MIFGSM", {"steps": 2.0}, "steps = 2.0 must be a whole number of at least 1"),
        ("MIFGSM", {"steps": True}, "steps = True must be a whole number"),
        ("MIFGSM", {"decay": "high"}, "decay = 'high' must be a finite number"),
        ("MIFGSM", {"decay": True}, "decay = True must be a finite number"),
        ("MIFGSM", {"step_size": 0}, "step_size = 0 must be a finite number above 0"),
        ("MIFGSM", {"step_size": 0.1, "alpha": 0.1}, "not both"),
        ("Jitter", {"random_start": 1}, "random_start = 1 must be true or false"),
        ("UPGD", {"loss": 3}, "loss = 3 must be text"),
        ("EADL1", {"max_iterations": 9}, "max_iterations = 9 must be a whole number of at least 10"),
        ("CW", {"step_size": 0.1}, "unknown setting of torchattacks:CW 'step_size'"),
        ("MIFGSM", {"steps": [3]}, r"steps = \[3\] must be a whole number, a finite number, text or true or false"),
    ],
)
def test_a_torchattack_that_cannot_run_is_refused_when_the_battery_is_read(name, settings, words):
    pytest.importorskip("torchattacks")
    with pytest.raises(InputError, match=words) as caught:
        make_attack(f"torchattacks:{name}", settings, where="b.toml")
    assert str(caught.value).startswith("b.toml: ")


def test_a_missing_torchattacks_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(InputError, match=r"pip install --no-deps torchattacks==3.5.1"):
        make_attack("torchattacks:MIFGSM", {})
