"""Nothing in a file of somebody else is executed, and no path of theirs leads out of its folder."""

import ast
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tampering import begun, seal

import robustframe
from robustframe.cli.shared import plain
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.files import check_sealed, is_plain_name, read_plain
from robustframe.recipe import Recipe, load_battery, read_toml
from robustframe.report.robustness import robustness_table
from robustframe.runs import open_run
from robustframe.runs.manifest import read_manifest
from robustframe.threat import parse_eps
from robustframe.train import read_training_recipes
from robustframe.verification.compare import compare_runs

PACKAGE = Path(robustframe.__file__).parent

EVIL = """
from pathlib import Path
Path(__file__).with_name("it ran").touch()
from robustframe.attacks import FGSM
class Evil(FGSM):
    pass
def build():
    import torch
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


@pytest.fixture(scope="module")
def honest(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small run; do not change its files."""
    place = tmp_path_factory.mktemp("honest")
    (place / "small.toml").write_text('schema = 1\nname = "small"\nversion = "1"\n[[attack]]\nuse = "fgsm"\n')
    (place / "recipe.toml").write_text(
        'schema = 1\nname = "small"\nseed = 0\nthreats = ["linf:0.3"]\nbattery = ["small.toml"]\ndiagnose = false\n'
        f'[data]\nuse = "digits"\ncount = 8\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    evaluate_recipe(place / "recipe.toml", out=place / "run", device="cpu")
    return place


@pytest.fixture
def place(honest: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change, with a Python file that tells when it is run."""
    copy = Path(shutil.copytree(honest, tmp_path / "place"))
    (copy / "evil.py").write_text(EVIL)
    return copy


def change(run: Path, edit: Any) -> None:
    content = json.loads((run / "record.json").read_text())
    edit(content)
    (run / "record.json").write_text(json.dumps(content))


def an_evil_model(content: dict[str, Any]) -> None:
    content["recipe"]["model"] = [{"use": "file:evil.py:build"}]


def an_evil_attack(content: dict[str, Any]) -> None:
    content["batteries"][0]["attack"] = [{"use": "file:evil.py:Evil"}]


def an_evil_loss(content: dict[str, Any]) -> None:
    content["batteries"][0]["attack"] = [{"use": "apgd", "loss": "file:./evil.py:build"}]


def an_evil_substitute(content: dict[str, Any]) -> None:
    content["batteries"][0]["attack"] = [{"use": "apgd", "bpda": {"head": "file:evil.py:build"}}]


def an_evil_key(content: dict[str, Any]) -> None:
    """A walk that took what stands under ``data`` for arrays would not look here."""
    content["batteries"][0]["attack"] = [{"use": "apgd", "bpda": {"data": "file:evil.py:build"}}]


def an_evil_surrogate(content: dict[str, Any]) -> None:
    content["batteries"][0]["attack"] = [{"use": "apgd", "through": "file:evil.py:build"}]


def an_evil_link(content: dict[str, Any]) -> None:
    content["recipe"]["model"] = [{"use": "file:innocent.py:build"}]


def evil_weights(content: dict[str, Any]) -> None:
    content["recipe"]["model"] = [{"use": "torchvision:resnet18", "weights": "file:evil.py:build"}]


EDITS = [
    an_evil_model, an_evil_attack, an_evil_loss, an_evil_substitute, an_evil_key, an_evil_surrogate, an_evil_link,
    evil_weights,
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_code_that_a_record_names_does_not_run(edit: Any, place: Path) -> None:
    change(place / "run", edit)
    seal(place / "run")
    (place / "innocent.py").symlink_to(place / "evil.py")
    for read in (
        lambda: robustframe.verify(place / "run", device="cpu", folder=place),
        lambda: robustframe.verify(place / "run", device="cpu", folder=place, code=[place / "other.py"]),
        lambda: compare_runs(place / "run", place / "run", folder=place),
    ):
        with pytest.raises(
            InputError,
            match=r"(?s)not run unasked.*evil\.py.*allow it with `robustframe .*--folder .*--code .*l\.py",
        ):
            read()
    robustness_table(open_run(place / "run"))
    assert not (place / "it ran").exists()


def test_code_that_the_user_named_too_runs(place: Path) -> None:
    change(place / "run", an_evil_attack)
    found = robustframe.verify(place / "run", device="cpu", folder=place, code=[place / "evil.py"])
    assert (place / "it ran").exists()
    assert not found.ok


BY_NAME = """
import importlib
KIND = "pl" + "ug"
def build():
    return importlib.import_module(KIND).net()
"""
PLUG = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


def test_ones_own_run_asks_again_where_code_that_no_import_names_is_another(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "model.py").write_text(BY_NAME)
    (mine / "plug.py").write_text(PLUG)
    (mine / "recipe.toml").write_text(
        'schema = 1\nname = "own"\nseed = 0\nthreats = ["linf:0.01"]\nbattery = ["quick@1"]\ndiagnose = false\n'
        '[data]\nuse = "digits"\ncount = 8\n[[model]]\nuse = "file:model.py:build"\n'
    )
    evaluate_recipe(mine / "recipe.toml", out=mine / "run", device="cpu")
    assert robustframe.verify(mine / "run", device="cpu", folder=mine).ok
    bundle = Path(shutil.copytree(mine, tmp_path / "bundle"))
    for place in (bundle, mine):
        (place / "plug.py").write_text(EVIL + PLUG)
        with pytest.raises(InputError, match=r"(?s)not run unasked.*model\.py"):
            robustframe.verify(place / "run", device="cpu", folder=place)
        assert not (place / "it ran").exists()
    # In another place it is somebody's run, even where nothing was changed.
    (mine / "plug.py").write_text(PLUG)
    assert robustframe.verify(mine / "run", device="cpu", folder=mine).ok
    (bundle / "plug.py").write_text(PLUG)
    with pytest.raises(InputError, match=r"(?s)not run unasked.*model\.py"):
        robustframe.verify(bundle / "run", device="cpu", folder=bundle)


def test_a_battery_file_that_a_record_names_is_read_and_not_run(place: Path) -> None:
    (place / "evil.toml").write_text('schema=1\nname="small"\nversion="1"\n[[attack]]\nuse="file:evil.py:Evil"\n')
    change(place / "run", lambda content: content["recipe"].update(battery=["evil.toml"]))
    found = robustframe.verify(place / "run", device="cpu", folder=place)
    assert not found.ok
    assert not (place / "it ran").exists()


def calls(tree: ast.AST) -> Iterator[str]:
    """What a file could run data with: modules that unpickle, and calls by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle" and node.attr != "UnpicklingError":
            yield "pickle"
        if isinstance(node, ast.Import):
            # The name of an exception of pickle's is no harm.
            yield from (name for alias in node.names if (name := alias.name.split(".")[0]) != "pickle")
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield f"{node.func.id}()"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = f"{ast.unparse(node.func.value)}.{node.func.attr}()"
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name == "torch.load()" and words.get("weights_only") == "True":
                continue
            yield f"{name} allow_pickle" if words.get("allow_pickle", "False") != "False" else name


FORBIDDEN = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "code",
    "eval()", "exec()", "compile()", "__import__()", "torch.load()", "torch.jit.load()", "torch.hub.load()",
    "os.system()", "os.popen()", "yaml.load()", "np.load() allow_pickle", "numpy.load() allow_pickle",
}  # fmt: skip


OWN_PROCESSES = {"children.py: pickle"}
"""Between a process and its own child, where a model runs that the user has let run: no file, and nobody's data."""


def test_the_package_has_no_call_that_runs_data() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {call}"
        for path in PACKAGE.rglob("*.py")
        for call in calls(ast.parse(path.read_text(encoding="utf-8")))
        if call in FORBIDDEN
    }
    assert found == OWN_PROCESSES


@pytest.mark.parametrize(
    "text",
    [
        "pickle.loads(x)",
        "import dill",
        "from pickle import loads",
        "eval(x)",
        "torch.load(x)",
        "np.load(x, allow_pickle=True)",
    ],
)
def test_the_search_sees_such_a_call(text: str) -> None:
    assert FORBIDDEN & set(calls(ast.parse(text)))


def test_the_search_lets_harmless_calls_be() -> None:
    assert not FORBIDDEN & set(calls(ast.parse("torch.load(x, weights_only=True); model.eval(); np.load(x)")))


def test_code_is_loaded_by_path_in_one_place_only() -> None:
    found = [path.name for path in PACKAGE.rglob("*.py") if "exec_module" in path.read_text(encoding="utf-8")]
    assert found == ["project.py"]


def a_link(run: Path) -> None:
    (run / "units" / "away").symlink_to("/tmp")


def a_link_for_a_file(run: Path) -> None:
    (run / "record.json.part").symlink_to(run.parent / "precious")


def a_pipe(run: Path) -> None:
    os.mkfifo(run / "units" / "pipe")


@pytest.mark.parametrize("harm", [a_link, a_link_for_a_file, a_pipe])
def test_a_run_folder_with_links_or_pipes_is_neither_read_nor_continued(harm: Any, place: Path) -> None:
    (place / "precious").write_text("mine")
    harm(place / "run")
    with pytest.raises(InputError, match="a run's folder holds plain files and folders only"):
        open_run(place / "run")
    with pytest.raises(InputError, match="plain files and folders only"):
        evaluate_recipe(place / "recipe.toml", out=place / "run", device="cpu")
    (place / "run" / "record.json").unlink()
    with pytest.raises(InputError, match="plain files and folders only"):
        evaluate_recipe(place / "recipe.toml", out=place / "run", device="cpu")
    assert (place / "precious").read_text() == "mine"


def test_a_run_may_lie_behind_a_link(place: Path) -> None:
    (place / "here").symlink_to(place / "run")
    check_sealed(place / "here")
    assert open_run(place / "here").complete


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "units/../../x", "units//x", "a\0b"])
def test_a_manifest_names_files_of_the_run_only(name: str, tmp_path: Path) -> None:
    (tmp_path / "evidence.sha256").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(InputError, match="not a file of the run"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/mem", ".", "a\0b", "x" * 300, "nowhere"])
def test_what_is_no_plain_file_is_not_read(path: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_plain(Path(path), limit=100)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_plain(tmp_path / "a", limit=5, inside=tmp_path) == b"12345"
    with pytest.raises(InputError, match="larger than 4 bytes"):
        read_plain(tmp_path / "a", limit=4)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="leads out of"):
        read_plain(tmp_path / "b" / "a", limit=5, inside=tmp_path / "b")


def test_names_of_files() -> None:
    assert is_plain_name("a.b-c_d e")
    assert not any(map(is_plain_name, ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", "a" * 201]))


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "1/0", "9" * 31, "nan", "-1", "1" + "0" * 5000])
def test_a_radius_that_would_take_for_ever_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="eps"):
        parse_eps(text)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "seed = " + "9" * 5000,
        "seed = 0x" + "f" * 5000,
        'battery = ["a\\u0000.toml"]',
        "x = 1979-05-27",
    ],
)
def test_toml_that_no_reader_is_made_for_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    for read in (
        lambda: read_toml(tmp_path / "x.toml", Recipe),
        lambda: load_battery(str(tmp_path / "x.toml")),
        lambda: read_training_recipes(tmp_path / "x.toml"),
    ):
        with pytest.raises(InputError):
            read()


def test_a_pipe_in_place_of_a_recipe_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with pytest.raises(InputError, match="not a plain file"):
        read_toml(tmp_path / "x.toml", Recipe)


def test_control_characters_are_spelt_out() -> None:
    assert plain("a\x1b[2Jb\u202e\n") == "a\\x1b[2Jb\\u202e\n"


def other_version(content: dict[str, Any]) -> None:
    content["environment"]["robustframe"] = "0.0.9"
    content["hash"] = "0" * 64


def other_examples(content: dict[str, Any]) -> None:
    content["data"]["sha256"] = content["hash"] = "0" * 64


def other_models(content: dict[str, Any]) -> None:
    content["classifiers"][0]["sha256"] = content["hash"] = "0" * 64


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (other_version, r"robustframe 0\.0\.9 began it, this is .*, whose results may be others"),
        (other_examples, r"\): other examples; choose"),
        (other_models, r"\): other models; choose"),
    ],
)
def test_a_run_that_would_end_otherwise_is_not_continued(edit: Any, why: str, place: Path) -> None:
    begun(place / "run")
    change(place / "run", edit)
    before = (place / "run" / "record.json").read_bytes()
    with pytest.raises(InputError, match=why):
        evaluate_recipe(place / "recipe.toml", out=place / "run", device="cpu")
    assert (place / "run" / "record.json").read_bytes() == before


def test_a_record_of_a_later_version_says_who_wrote_it(place: Path) -> None:
    text = (place / "run" / "record.json").read_text().replace('"schema": 2', '"schema": 3', 1)
    version = json.loads(text)["environment"]["robustframe"]
    (place / "run" / "record.json").write_text(text.replace(f'"robustframe": "{version}"', '"robustframe": "9.0"'))
    with pytest.raises(InputError, match=r"not a record of this version: schema = 3: .*\(robustframe 9\.0 wrote it\)"):
        open_run(place / "run")
