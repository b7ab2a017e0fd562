"""Recipes and batteries are strict: every mistake is one sentence with file, key and the way out."""

from pathlib import Path

import pytest

from robustframe.errors import InputError
from robustframe.recipe import (
    Battery,
    Recipe,
    batteries,
    digest,
    find_recipe,
    load_battery,
    make_attacks,
    parse_threats,
    read_battery,
    read_toml,
    recipes,
    shipped_folder,
)

GOOD = """
schema = 1
name = "mine"
seed = 0
threats = ["linf:8/255"]
battery = ["quick@1"]
[data]
use = "digits"
[[model]]
use = "zoo:fmnist-chain3"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    recipe = read_toml(write(tmp_path, GOOD), Recipe)
    assert (recipe.chunk, recipe.data.split, recipe.data.count) == (250, "test", None)
    assert recipe.model[0].twins == ["feedforward", "recurrent"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed = 0", "sed = 0", r"recipe.toml: sed: unknown key 'sed'; did you mean 'seed'\?"),
        ("seed = 0", "", "recipe.toml: seed is missing"),
        ("seed = 0", 'seed = "0"', "seed = '0': Input should be a valid integer"),
        ("seed = 0", "seed = true", "seed = True: Input should be a valid integer"),
        ("seed = 0", "seed = -1", "greater than or equal to 0"),
        ("schema = 1", "schema = 2", "schema = 2: Input should be 1"),
        ('use = "digits"', 'use = "digits"\nsplt = "test"', r"unknown key 'splt'; did you mean 'split'\?"),
        ('use = "digits"', 'use = "digits"\ncount = 0', "data.count = 0: .* greater than or equal to 1"),
        ('"zoo:fmnist-chain3"', '"zoo:fmnist-chain3"\ntwins = ["feedfoward"]', r"model\[1\].twins\[1\] = 'feedfoward'"),
        ('name = "mine"', 'name = "../mine"', "name = '../mine'"),
        ("threats = [", "threats = [[", "damaged or not a TOML file"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=sentence) as caught:
        read_toml(write(tmp_path, GOOD.replace(old, new)), Recipe)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_mark_of_the_encoding_does_no_harm_and_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert read_toml(path, Recipe).name == "mine"
    path.write_text(GOOD, encoding="utf-16")
    with pytest.raises(InputError, match=r"recipe\.toml is UTF-16; save it as UTF-8"):
        read_toml(path, Recipe)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("autoattack", "here: autoattack is called standard@1 here"),
        ("Auto_Attack", "called standard@1"),
        ("aa", "called standard@1"),
        ("autoattack-rand", "called rand@1"),
        ("apgd", "apgd is an attack, not a battery; write one of it, mine.toml"),
    ],
)
def test_what_others_call_a_battery_is_offered_under_its_name(given: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_battery(given, where="here")


def test_recipes_are_found_by_name_folder_and_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert find_recipe(str(tmp_path)) == path
    assert find_recipe(str(path)) == path
    assert find_recipe("default") == recipes()["default"]
    with pytest.raises(InputError, match=r"unknown recipe 'defalt'; did you mean 'default'\?"):
        find_recipe("defalt")
    with pytest.raises(InputError, match="there is no recipe"):
        find_recipe(str(tmp_path / "other.toml"))


def test_a_battery_is_found_by_citation_name_or_file(tmp_path: Path) -> None:
    assert load_battery("quick") == load_battery("quick@1")
    (tmp_path / "own.toml").write_text('schema = 1\nname = "own"\nversion = "0.1"\n[[attack]]\nuse = "fgsm"\n')
    own = load_battery("own.toml", folder=tmp_path)
    assert own.cited == "own@0.1"
    assert [type(attack).__name__ for attack in make_attacks(own)] == ["FGSM"]
    with pytest.raises(InputError, match=r"here: unknown battery 'quick@9'; did you mean 'quick@1'\?"):
        load_battery("quick@9", where="here")
    (tmp_path / "own.toml").write_text('schema = 1\nname = "own"\nversion = "0.1"\n[[attack]]\nuse = "fgsm"\nlos = 1\n')
    with pytest.raises(InputError, match=r"own@0.1, attack 1: .*'los'; did you mean 'loss'\?"):
        load_battery("own.toml", folder=tmp_path)


def test_no_file_takes_the_name_of_a_shipped_battery_but_its_own(tmp_path: Path) -> None:
    shipped = (shipped_folder("attacks") / "standard.toml").read_text(encoding="utf-8")
    (tmp_path / "own.toml").write_text(shipped, encoding="utf-8")
    assert load_battery("own.toml", folder=tmp_path) == load_battery("standard@1")
    for old, new in (
        ("steps = 100", "steps = 99"), ("steps = 100", "steps = 100.0"), ("steps = 100", "steps = 100\neot = 2"),
        ('version = "1"', 'version = "1.0"\nvotes = 3'), ('name = "standard"', 'name = "Standard"\nvotes = 3'),
    ):  # fmt: skip
        assert old in shipped
        (tmp_path / "own.toml").write_text(shipped.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(InputError, match=r"calls itself [sS]tandard@1.*give it another name"):
            read_battery("own.toml", folder=tmp_path)
    (tmp_path / "own.toml").write_text(shipped.replace('version = "1"', 'version = "2"'), encoding="utf-8")
    assert read_battery("own.toml", folder=tmp_path).cited == "standard@2"


PUBLISHED = {
    "masked@1": "79236a478fa5a0a0c7b48b8603b5269f5ec9e3cc50c3b1d0d287b20a3c6cc1f5",
    "minimal@1": "fddbb2893f73bc52eef6fb46acc187b9ecda34ffbf611077d98e240807dd7e14",
    "quick@1": "228baa4db1ff853dbb20ef850eea017921143703e777accb198fe70d906e9bac",
    "rand@1": "86c4604325c8bc4f130e390a67467fe914aab2527756d413080f6ad0a308854a",
    "recurrent@1": "27cb5cf816afbdbbaa618ecfc64ed5701e997eda0051e1a195f28bfc3355bb86",
    "standard@1": "a00eaf8e80166565b285b626cfa1e3bd7406067ed7c0f0e22c61350e1d7e6224",
    "standard-bf16@1": "7c0d1bb25c0bcf81f8afa491b55b48418543754b3db336e100bbd79f382e904b",
    "strong@1": "b8d2f4c3798949b81b4730823002c40f8c5b3138eeee513aadf03e8f5008b482",
    "swift@1": "0807293722f25429afef3509abfff977c583eef992d83987a29bf67824ed96a2",
    "swift@2": "961aae9e934eeb3472edbfd941b21d36d46b41725c711a0a3f1ca51ba465efc1",
    "torchattacks@1": "b183d849d14806a9b7efb6f952382e3e08bb75e596e76a24d491284355fcd42b",
}
"""SHA-256 of what each published battery asks, beyond its description: a published version never changes."""


def test_a_published_battery_never_changes() -> None:
    found = {
        battery.cited: digest(battery.model_dump(by_alias=True, exclude={"about"}, exclude_defaults=True))
        for battery in batteries()
        if not battery.version.startswith("0")
    }
    assert found == PUBLISHED


def test_every_shipped_battery_builds_its_attacks() -> None:
    for battery in batteries():
        assert len(make_attacks(battery)) == len(battery.attack)


def test_threats_are_exact_and_distinct() -> None:
    (threat,) = parse_threats(["linf:8/255"])
    assert (threat.norm, threat.eps, threat.label) == ("linf", 8 / 255, "linf:8/255")
    with pytest.raises(InputError, match=r"mine\.toml: a threat appears twice"):
        parse_threats(["l2:1", "l2:1"], where="mine.toml")


def test_settings_of_a_battery_are_free_but_its_own_keys_are_not(tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text('schema = 1\nname = "b"\nversion = "1"\nabot = ""\n[[attack]]\nuse = "fgsm"\n')
    with pytest.raises(InputError, match=r"unknown key 'abot'; did you mean 'about'\?"):
        read_toml(path, Battery)
