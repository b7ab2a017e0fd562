"""What `robustframe new` writes runs as it is, in any folder, under any name that it takes."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from robustframe.data import load
from robustframe.errors import InputError
from robustframe.evaluation import load_task
from robustframe.runs import open_run
from robustframe.templates import write_template


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)


def shell(readme: Path) -> list[list[str]]:
    """The commands of a page, in order."""
    lines = readme.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line.startswith(("robustframe ", "python "))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attack", "defence"])
def test_every_command_of_the_readme_does_what_it_says(kind: str, tmp_path: Path) -> None:
    written = run("-m", "robustframe", "new", kind, "my-own", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert "robustframe evaluate my-own/recipe.toml" in written.stderr
    recipe = tmp_path / "my-own" / "recipe.toml"
    # Fewer images than as written: what is tested is that all of it runs.
    count = "count = 200" if kind == "defence" else "count = 100"
    assert count in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(count, "count = 20"))
    if kind == "defence":
        train = tmp_path / "my-own" / "train.py"
        train.write_text(train.read_text().replace("0.1, 8, 64", "0.1, 2, 64"))
    commands = shell(tmp_path / "my-own" / "README.md")
    assert len(commands) >= 3
    for words in commands:
        found = run(*(["-m"] if words[0] == "robustframe" else []), *words[words[0] == "python" :], cwd=tmp_path)
        assert found.returncode == 0, f"{words}: {found.stdout} {found.stderr}"
    record = open_run(tmp_path / "my-own" / "run").record
    assert record.name == "my-own"
    if kind == "attack":
        mine = [entry for result in record.results or [] for entry in result.attacks if entry.name == "my-own"]
        assert sum(entry.broken for entry in mine) > 10
        assert sum(entry.unverified for entry in mine) == 0
    else:
        again = open_run(tmp_path / "my-own" / "run-2").record
        assert again.classifiers[0].weights_sha256 != record.classifiers[0].weights_sha256
        assert again.results is not None
        assert again.results[0].robust_correct >= 8


def test_the_weights_that_come_with_the_defence_are_worth_showing(tmp_path: Path) -> None:
    import torch

    write_template("defence", "mine", place=tmp_path)
    task = load_task(tmp_path / "mine" / "recipe.toml", device=torch.device("cpu"))
    assert task.classifiers[0].entry.name == "mine"
    assert task.classifiers[0].entry.weights_sha256 is not None
    data = load("fashion-mnist").first(1000)
    with torch.no_grad():
        right = task.classifiers[0].module.eval()(data.images).argmax(1) == data.labels
    assert float(right.double().mean()) > 0.8
    assert load_file(tmp_path / "mine" / "weights.safetensors").keys() == task.classifiers[0].module.state_dict().keys()


def test_the_test_of_the_attack_sees_an_attack_that_does_not_reach_the_boundary(tmp_path: Path) -> None:
    for name in ("mine", "attack"):
        write_template("attack", name, place=tmp_path)
        assert run("test_attack.py", cwd=tmp_path / name).returncode == 0
    attack = tmp_path / "mine" / "attack.py"
    attack.write_text(attack.read_text().replace("points + self.step_size", "points + 0.01 * self.step_size"))
    assert "AssertionError" in run("test_attack.py", cwd=tmp_path / "mine").stderr


@pytest.mark.parametrize("name", ["", "../mine", "a/b", "a b", "-x", ".hidden", "x" * 65, "ümlaut", "a\n"])
def test_a_name_that_could_leave_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must begin with a letter"):
        write_template("defence", name, place=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="is there already"):
        write_template("attack", "mine", place=tmp_path)
    with pytest.raises(InputError, match="cannot be made"):
        write_template("attack", "mine", place=tmp_path / "nowhere")
    found = run("-m", "robustframe", "new", "defence", "mine", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert list((tmp_path / "mine").iterdir()) == []
