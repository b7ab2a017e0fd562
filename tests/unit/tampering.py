"""Ways to change a run: what test_verify does to a copy of an honest one, and what must then be said."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustframe.data import load
from robustframe.evaluation.task import run_hash
from robustframe.runs.manifest import bound_files, file_sha256, manifest
from robustframe.runs.opening import read_run
from robustframe.runs.units import parquet

CLEAN = "units/00-tiny_feedforward/clean"
PGD = "units/00-tiny_feedforward/linf_0.15/small_0.1_01-pgd"
APGD = "units/00-tiny_feedforward/linf_0.15/small_0.1_02-apgd"


def table(path: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        rows = change(pl.read_parquet(run / path))
        (run / path).write_bytes(parquet(rows))

    return tamper


def cell(path: str, row: Any, column: str, value: Any) -> Callable[[Path], None]:
    """Set one cell, in the first row that an expression picks."""

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        at = rows.with_row_index("at").filter(row)["at"][0]
        values = rows[column].to_list()
        values[at] = value(values[at]) if callable(value) else value
        return rows.with_columns(pl.Series(column, values, rows.schema[column]))

    return table(path, change)


def tensors(path: str, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        held = load_file(run / path)
        images, index = change(held["adversarial"].clone(), held["index"].clone())
        save_file({"adversarial": images.contiguous(), "index": index.contiguous()}, run / path)

    return tamper


def pixels(change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    return tensors(f"{PGD}/00000.safetensors", lambda images, index: (change(images), index))


def record(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        content = json.loads((run / "record.json").read_text())
        change(content)
        (run / "record.json").write_text(json.dumps(content, indent=2) + "\n")

    return tamper


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        for change in changes:
            change(run)

    return tamper


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a value of the record by its path, such as ``results.0.robust_correct``."""

    def change(content: dict[str, Any]) -> None:
        *way, last = (int(part) if part.isdigit() else part for part in key.split("."))
        spot: Any = content
        for part in way:
            spot = spot[part]
        spot[last] = value(spot[last]) if callable(value) else value

    return change


def swap(images: Tensor) -> Tensor:
    return images[[1, 0, *range(2, len(images))]]


def outside_ball(images: Tensor) -> Tensor:
    images[0] = (images[0] + 0.5) % 1
    return images


def outside_box(images: Tensor) -> Tensor:
    images[0].view(-1)[images[0].flatten().argmin()] -= 0.01
    return images


def not_a_number(images: Tensor) -> Tensor:
    images[0].view(-1)[5] = torch.nan
    return images


def a_hair(images: Tensor) -> Tensor:
    images[0].view(-1)[20:30] = images[0].flatten()[20:30].sub(0.01).clamp_min(0)
    return images


def cut(path: str) -> Callable[[Path], None]:
    return lambda run: (run / path).write_bytes((run / path).read_bytes()[:-60]) and None


def drop(path: str) -> Callable[[Path], None]:
    return lambda run: (run / path).unlink()


def swap_files(one: str, other: str) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        first, second = (run / one).read_bytes(), (run / other).read_bytes()
        (run / one).write_bytes(second)
        (run / other).write_bytes(first)

    return tamper


def success(yes: bool) -> pl.Expr:
    return pl.col("success") if yes else ~pl.col("success")


def other(number: int) -> int:
    return (number + 1) % 10


def another_verdict(verdict: str) -> str:
    return "suspicious" if verdict == "sound" else "sound"


def extra(run: Path) -> None:
    row = pl.read_parquet(run / T0).head(1).with_columns(index=pl.lit(88, pl.Int64))
    table(T0, lambda rows: pl.concat([rows, row]))(run)


def not_attacked(run: Path) -> None:
    clean = load("digits").images
    tensors(I0, lambda images, index: (clean[index], index))(run)


def stray(run: Path) -> None:
    shutil.copy(run / I0, run / f"{CLEAN}/00000.safetensors")


BROKEN, ROBUST = ~pl.col("robust") & pl.col("clean_correct"), pl.col("robust")
BY_FIRST = pl.col("broken_by").str.contains("/01-").fill_null(value=False)
V, R, FIRST = "verdicts.parquet", "record.json", "results.0"
DIAGNOSIS = "units/00-tiny_feedforward/linf_0.15/diagnosis.json"
T0, I0 = f"{PGD}/00000.parquet", f"{PGD}/00000.safetensors"

invented = both(cell(T0, success(False), "claimed", True), cell(T0, success(False), "success", True))
# Name, what is done, where it must be found, and what must be said. What follows from content alone must be found
# also by someone who writes all hashes anew.
CONTENT: list[tuple[str, Callable[[Path], None], str, str]] = [
    ("verdict: broken becomes robust", cell(V, BROKEN, "robust", True), V, "robust is True, its units give False"),
    ("verdict: robust becomes broken", cell(V, ROBUST, "robust", False), V, "robust is False, its units give True"),
    ("verdict: clean_correct", cell(V, ROBUST, "clean_correct", False), V, "clean_correct is False"),
    ("verdict: clean prediction", cell(V, ROBUST, "clean_prediction", other), V, "clean_prediction is"),
    ("verdict: adversarial prediction", cell(V, BROKEN, "adversarial_prediction", other), V,
     "adversarial_prediction is"),
    ("verdict: broken by another attack", cell(V, BY_FIRST, "broken_by", "small@0.1/02-apgd"), V, "broken_by is"),
    ("verdict: distance", cell(V, BROKEN, "distance", 0.01), V, "distance is 0.01, its units give"),
    ("verdict: label", cell(V, ROBUST, "label", other), V, "label is"),
    ("verdict: cost", cell(V, ROBUST, "forwards", lambda n: n + 1), V, "forwards is"),
    ("verdict: missing", table(V, lambda rows: rows.slice(1)), V, "its verdict is missing"),
    ("verdict: twice", table(V, lambda rows: pl.concat([rows, rows.head(1)])), V, "more than once"),
    ("verdict: of an example there is not", cell(V, ROBUST, "index", 9000), V, "does not ask"),
    ("verdict: renamed classifier", table(V, lambda rows: rows.with_columns(classifier=pl.lit("mine"))), V,
     "does not ask"),
    ("verdicts: truncated", cut(V), V, "damaged or not a Parquet file"),
    ("verdicts: a column renamed", table(V, lambda rows: rows.rename({"robust": "safe"})), V, "its columns are"),
    ("verdicts: deleted", drop(V), V, "it is missing"),
    ("clean: prediction", cell(f"{CLEAN}/00001.parquet", pl.col("prediction") == pl.col("label"), "prediction",
     other), f"{CLEAN}/00001.parquet", "the exact model says"),
    ("clean: label", cell(f"{CLEAN}/00001.parquet", pl.lit(True), "label", other),
     f"{CLEAN}/00001.parquet", "its label is"),
    ("clean: duplicated index", cell(f"{CLEAN}/00001.parquet", pl.col("index") == 41, "index", 40),
     f"{CLEAN}/00001.parquet", "more than once"),
    ("clean: deleted unit", drop(f"{CLEAN}/00002.parquet"), f"{CLEAN}/00002.parquet", "this unit is missing"),
    ("clean: empty cell", cell(f"{CLEAN}/00000.parquet", pl.lit(True), "prediction", None),
     f"{CLEAN}/00000.parquet", "empty cells in prediction"),
    ("attack: success denied", cell(T0, success(True), "success", False), I0, "an image of no claimed success"),
    ("attack: success invented", invented, I0, "a claimed success without a stored image"),
    ("attack: success that nobody claimed", cell(T0, success(True), "claimed", False), T0, "did not claim"),
    ("attack: predicted right", cell(T0, success(False), "prediction", other), T0, "no success, yet"),
    ("attack: prediction of a break", cell(T0, success(True), "prediction", lambda p: (p + 7) % 10), T0,
     "for the stored image, the table"),
    ("attack: distance of a break", cell(T0, success(True), "distance", 0.02), T0, "the table says 0.02"),
    ("attack: distance outside the ball", cell(T0, success(False), "distance", 0.3), T0, "not inside linf:0.15"),
    ("attack: negative cost", cell(T0, success(False), "backwards", -5), T0, "below 0"),
    ("attack: extra row", extra, T0, "it is here, but not one of survivors"),
    ("attack: row removed", table(T0, lambda rows: rows.filter(pl.col("index") != pl.col("index").max())), T0,
     "it is missing; it is one of survivors"),
    ("attack: duplicated row", table(T0, lambda rows: pl.concat([rows, rows.tail(1)])), T0, "more than once"),
    ("attack: rows in another order", table(T0, lambda rows: rows.reverse()), T0, "another order"),
    ("attack: a broken example met the next attack",
     table(f"{APGD}/00000.parquet", lambda rows: rows.with_columns(index=rows["index"].replace(rows["index"][0], 89))),
     f"{APGD}/00000.parquet", "but not one of survivors"),
    ("bounds: certified count", record(put("results.0.certified_correct", 90)), R, "the certificates prove"),
    ("attack: deleted unit", drop(T0), T0, "this unit is missing"),
    ("diagnosis: verdict", record(put("results.0.diagnosis.verdict", another_verdict)), R, "its checks make it"),
    ("diagnosis: figure", record(put("results.0.diagnosis.checks.0.figure", 0.123)), DIAGNOSIS, "is another one"),
    ("diagnosis: taken out with its file", both(record(put("results.0.diagnosis", None)), drop(DIAGNOSIS)), R,
     "its diagnosis is missing"),
    ("diagnosis: truncated", cut(DIAGNOSIS), DIAGNOSIS, "is another one"),
    ("diagnosis: deleted", drop(DIAGNOSIS), DIAGNOSIS, "it is missing"),
    ("diagnosis: taken out", record(put("results.0.diagnosis", None)), DIAGNOSIS, "has no such diagnosis"),
    ("attack: truncated unit", cut(T0), T0, "damaged or not a Parquet file"),
    ("attack: unit of another chunk", swap_files(T0, f"{PGD}/00001.parquet"), T0, "not one of survivors"),
    ("images: swapped between examples", pixels(swap), I0, "outside the ball"),
    ("images: index swapped", tensors(I0, lambda images, index: (images, swap(index))), I0, "another order"),
    ("images: changed pixels", pixels(a_hair), T0, "the table says"),
    ("images: the clean image itself", not_attacked, I0, "no break: the exact model classifies it right"),
    ("images: outside the ball", pixels(outside_ball), I0, "outside the ball"),
    ("images: outside the box", pixels(outside_box), I0, r"leaves the box \[0, 1\]"),
    ("images: NaN", pixels(not_a_number), I0, "NaN or infinity"),
    ("images: another shape", pixels(lambda images: images[:, :, :4]), I0, "of shape"),
    ("images: in half precision", pixels(lambda images: images.half()), I0, "float16"),
    ("images: one stored twice", tensors(I0, lambda i, n: (torch.cat([i, i[:1]]), torch.cat([n, n[:1]]))), I0, "once"),
    ("images: one removed", tensors(I0, lambda i, n: (i[1:], n[1:])), I0, "without a stored image"),
    ("images: deleted", drop(I0), I0, "images are missing"),
    ("images: truncated", cut(I0), I0, "truncated"),
    ("images: of another chunk", swap_files(I0, f"{PGD}/00001.safetensors"), I0, "an image of no claimed success"),
    ("images: of a unit without a success", stray,
     f"{CLEAN}/00000.safetensors", "nothing in the record explains|images of a unit without"),
    ("record: robust_correct", record(put(f"{FIRST}.robust_correct", lambda n: n + 1)), R, "robust_correct is"),
    ("record: clean_correct", record(put(f"{FIRST}.clean_correct", lambda n: n - 1)), R, "clean_correct is"),
    ("record: examples", record(put(f"{FIRST}.examples", 91)), R, "examples is 91"),
    ("record: broken", record(put(f"{FIRST}.attacks.0.broken", 0)), R, "01-pgd: broken is 0"),
    ("record: entered", record(put(f"{FIRST}.attacks.1.entered", 90)), R, "02-apgd: entered is 90"),
    ("record: forwards", record(put(f"{FIRST}.attacks.0.forwards", 9**9)), R, "forwards is 387420489"),
    ("record: unverified", record(put(f"{FIRST}.attacks.0.unverified", 3)), R, "unverified is 3"),
    ("record: skipped", record(put(f"{FIRST}.attacks.0.skipped", "no gradient")), R, "skipped is no gradient"),
    ("record: steps of an attack", record(put(f"{FIRST}.attacks.0.settings.steps", 400)), R, "settings of small"),
    ("record: steps in the battery", record(put("batteries.0.attack.0.steps", 400)), R, "is not the battery"),
    ("record: an attack removed", record(lambda c: c["results"][0]["attacks"].pop()), R, "lists 1 attacks"),
    ("record: an attack renamed", record(put(f"{FIRST}.attacks.0.use", "square")), R, "lists square where"),
    ("record: seed", record(put("recipe.seed", 4)), R, "the hash of what it asks"),
    ("record: name", record(put("name", "other")), R, "it is named 'other', its recipe 'small'"),
    ("record: hash", record(put("hash", "0" * 64)), R, "the hash of what it asks"),
    ("record: version", record(put("environment.robustframe", "9.9")), R, "the hash of what it asks"),
    ("record: data hash", record(put("data.sha256", "0" * 64)), R, "data.sha256 is"),
    ("record: data split", record(put("data.split", "train")), R, "data.split is 'test' now"),
    ("record: threat of a result", record(put(f"{FIRST}.threat", "linf:0.3")), R, "which it does not ask"),
    ("record: eps", record(put("recipe.threats.0", "linf:0.3")), R, "no result for tiny/feedforward under linf:0.3"),
    ("record: a result removed", record(lambda c: c["results"].pop()), R, "no result for tiny/recurrent under l2:0.6"),
    ("record: a result twice", record(lambda c: c["results"].append(c["results"][0])), R, "two results"),
    ("record: weights", record(put("classifiers.0.sha256", "0" * 64)), R, "these are other weights"),
    ("record: sweeps", record(put("classifiers.1.sweeps", 99)), R, r"classifiers\[1\].*sweeps is 3 now"),
    ("record: renamed classifier", record(put("classifiers.0.name", "mine")), R, "name is 'tiny/feedforward' now"),
    ("record: a classifier removed", record(lambda c: c["classifiers"].pop()), R, "lists 1 classifiers"),
    ("record: swapped classifiers", record(lambda c: c["classifiers"].reverse()), R, "twin is 'feedforward' now"),
]  # fmt: skip


def reseal(run: Path) -> None:
    """Write every hash anew, as someone would who knows how runs are bound."""
    content = json.loads((run / "record.json").read_text())
    if (run / "verdicts.parquet").is_file():
        content["verdicts_sha256"] = hashlib.sha256((run / "verdicts.parquet").read_bytes()).hexdigest()
    hashes = {name: file_sha256(run / name) for name in bound_files(run)}
    (run / "evidence.sha256").write_bytes(manifest(hashes))
    content["evidence_sha256"] = hashlib.sha256((run / "evidence.sha256").read_bytes()).hexdigest()
    (run / "record.json").write_text(json.dumps(content, indent=2) + "\n")
    seal(run)


def seal(run: Path) -> None:
    """Seal a record as it stands."""
    (run / "seal.sha256").write_text(f"{file_sha256(run / 'record.json')}  record.json\n")


def resealed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change a record and seal it as it stands then."""

    def tamper(run: Path) -> None:
        record(change)(run)
        seal(run)

    return tamper


begun = record(
    lambda content: content.update(status="started", results=None, verdicts_sha256=None, evidence_sha256=None)
)


def checks(change: Callable[[list[dict[str, Any]], dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change the first row's checks, in the record and in the file that holds them."""

    def tamper(run: Path) -> None:
        content = json.loads((run / "record.json").read_text())
        diagnosis = content["results"][0]["diagnosis"]
        change(diagnosis["checks"], diagnosis)
        (run / "record.json").write_text(json.dumps(content, indent=2) + "\n")
        (run / DIAGNOSIS).write_text(json.dumps(diagnosis))

    return tamper


def measured(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in found if each["figure"] is not None)


def above(found: list[dict[str, Any]], diagnosis: dict[str, Any]) -> None:
    measured(found)["figure"] = 0.9


def any_threshold(found: list[dict[str, Any]], diagnosis: dict[str, Any]) -> None:
    measured(found).update(figure=0.9, threshold=1.0)


def never_run(found: list[dict[str, Any]], diagnosis: dict[str, Any]) -> None:
    measured(found).update(figure=None, passed=True, sentence="not run, as nobody had the time.")


def none_left(found: list[dict[str, Any]], diagnosis: dict[str, Any]) -> None:
    found.clear()
    diagnosis["verdict"] = "sound"


def another_order(found: list[dict[str, Any]], diagnosis: dict[str, Any]) -> None:
    found.reverse()


def renamed_check(found: list[dict[str, Any]], diagnosis: dict[str, Any]) -> None:
    found[0]["name"] = "always-fine"


def twice_the_key(run: Path) -> None:
    text = (run / "record.json").read_text()
    (run / "record.json").write_text(
        text.replace('"status": "complete"', '"status": "complete",\n  "status": "complete"')
    )


def without_a_row(run: Path) -> None:
    """Call a row failed that did not, and take its number away."""
    content = json.loads((run / "record.json").read_text())
    gone = content["results"].pop(0)
    row = {"classifier": gone["classifier"], "threat": gone["threat"], "reason": "it did not look good"}
    content["failed"] = [row]
    (run / "record.json").write_text(json.dumps(content, indent=2) + "\n")
    keep = (pl.col("classifier") != gone["classifier"]) | (pl.col("threat") != gone["threat"])
    table(V, lambda rows: rows.filter(keep))(run)


def write(path: str, content: str = "made up") -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        (run / path).write_text(content)

    return tamper


def rehashed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change what a record asks, and compute its hash anew."""

    def tamper(run: Path) -> None:
        record(change)(run)
        read = read_run(run)
        asked = run_hash(
            read.record.environment.robustframe, read.record.recipe, read.batteries, {}, read.record.data.sha256,
            [entry.model_dump() for entry in read.record.classifiers],
        )  # fmt: skip
        record(put("hash", asked))(run)

    return tamper


def renamed_battery(content: dict[str, Any]) -> None:
    """Call the battery a shipped one, in the record and in all rows."""
    content["batteries"][0] |= {"name": "standard", "version": "1"}
    for result in content["results"]:
        for entry in result["attacks"]:
            entry["battery"] = "standard@1"


FAILED_ROW = {"classifier": "tiny/feedforward", "threat": "linf:0.15", "reason": "it did not look good"}

# As `CONTENT`: what is named whoever writes all hashes and the seal anew. The file in which it is found comes last.
DERIVED: list[tuple[str, Callable[[Path], None], str, str]] = [
    ("check: the first deleted", checks(lambda found, _: found.pop(0)), "its checks lack", R),
    ("check: the last deleted", checks(lambda found, _: found.pop()), "its checks lack", R),
    ("check: all deleted", checks(none_left), "its checks lack", R),
    ("check: in another order", checks(another_order), "not those of the table, in order", R),
    ("check: renamed", checks(renamed_check), "its checks lack", R),
    ("check: above its threshold, yet passed", checks(above), "is said that it passed, .* that it failed", R),
    ("check: with a threshold of one's own", checks(any_threshold), "its threshold is 1, the table's", R),
    ("check: not run, yet passed", checks(never_run), "it is said that it passed, .* it was not run", R),
    ("check: called one that does not decide", checks(lambda found, _: found[0].update(decides=False)),
     "said not to decide", R),
    ("check: left out", checks(lambda found, _: found.pop(
        next(at for at, each in enumerate(found) if each["name"] == "gradient-no-derivative"))),
     "its checks lack gradient-no-derivative", R),
    ("check: of a million examples", checks(lambda found, _: measured(found).update(examples=10**6)),
     "it looked at 1,000,000 examples", R),
    ("check: an example that there is not", checks(lambda found, _: found[0].update(broken=[10**4])),
     "an example that there is not", R),
    ("diagnosis: a sample of a million", checks(lambda _, diagnosis: diagnosis.update(examples=10**6)),
     "its sample has 1000000 examples", R),
    ("diagnosis: a sample of none", checks(lambda _, diagnosis: diagnosis.update(examples=0)),
     "looked at no example", R),
    ("diagnosis: no passes", checks(lambda _, diagnosis: diagnosis.update(forwards=0, backwards=0)),
     "but the checks made no passes", R),
    ("diagnosis: a thousand times the passes", checks(lambda _, d: d.update(forwards=1000 * d["forwards"])),
     "its checks made .* leave them", R),
    ("flags: praise", record(lambda content: content["flags"].append("the most robust model there is")),
     "nothing in the run explains the flag", R),
    ("flags: twice", record(lambda content: content["flags"].extend(["x", "x"])), "appears twice", R),
    ("record: a key twice", twice_the_key, "a key appears twice", R),
    ("record: in one line", lambda run: write(R, json.dumps(json.loads((run / R).read_text())))(run),
     "not written as an evaluation writes it", R),
    ("record: a row called failed", without_a_row, "failed, though all its units are there", R),
    ("record: a certified count removed", record(put(f"{FIRST}.certified_correct", None)), "the certificates prove", R),
    ("record: an unchecked row that is checked", record(lambda c: c["failed"].append(FAILED_ROW)),
     "failed, though its result is there with its checks", R),
    ("record: a row called failed that nobody asked",
     record(lambda c: c["failed"].append({**FAILED_ROW, "threat": "linf:0.9"})), "which it does not ask", R),
    ("record: answers of nobody", record(put("answers.somebody", [[1.0, 0.0]])),
     "it has answers of somebody, which is not one of its classifiers", R),
    ("record: a setting of another type", record(put(f"{FIRST}.attacks.0.settings.steps", 4.0)), "the settings of", R),
    ("battery: called a shipped one", rehashed(renamed_battery), "standard@1 is not the battery of that name", R),
    ("record: other answers", record(put("answers.tiny/feedforward.0.0", 9.0)), "the model answers otherwise", R),
    ("record: answers called random", record(lambda content: content["answers"].pop("tiny/feedforward")),
     "its answers lack those of tiny/feedforward", R),
    ("attack: no passes", cell(T0, success(False), "forwards", 0), "0 forwards are no attack of 1 step", T0),
    ("stray: a note", write("README.txt"), "nothing in the record explains this file", "README.txt"),
    ("stray: an empty folder", lambda run: (run / "units" / "mine").mkdir(), "explains this empty folder",
     "units/mine"),
    ("stray: a table of another unit", write(f"{CLEAN}/99999.parquet"), "nothing in the record explains",
     f"{CLEAN}/99999.parquet"),
    ("stray: a picture among the units", write(f"{PGD}/shot.png"), "nothing in the record explains", f"{PGD}/shot.png"),
    ("table: Markdown", write("table.md"), "it is not the table of this run", "table.md"),
    ("table: CSV", write("table.csv"), "it is not the table of this run", "table.csv"),
    ("table: LaTeX", write("table.tex"), "it is not the table of this run", "table.tex"),
]  # fmt: skip


def everybody_robust(run: Path) -> None:
    """Take all evidence away, and write of every example that is right that it stayed so."""
    shutil.rmtree(run / "units")
    (run / "evidence.sha256").unlink()
    none = {"broken_by": pl.lit(None, pl.String), "adversarial_prediction": pl.lit(None, pl.Int64)}
    table(V, lambda rows: rows.with_columns(robust="clean_correct", distance=pl.lit(None, pl.Float64), **none))(run)
    content = json.loads((run / "record.json").read_text())
    for result in content["results"]:
        result |= {"robust_correct": result["clean_correct"], "diagnosis": None}
        for entry in result["attacks"]:
            entry["broken"] = 0
    content["recipe"]["diagnose"] = False
    (run / "record.json").write_text(json.dumps(content, indent=2) + "\n")


# What nobody can know without attacking again, and a seal that was kept tells all the same.
UNKNOWABLE: list[tuple[str, Callable[[Path], None]]] = [
    ("about", rehashed(put("recipe.about", "the strongest there is"))),
    ("name", rehashed(lambda content: (put("name", "other")(content), put("recipe.name", "other")(content)))),
    ("versions of torch", record(put("environment.torch", "2.0.0"))),
    ("numpy", record(put("environment.numpy", "1.0"))),
    ("platform", record(put("environment.platform", "Windows"))),
    ("torchattacks", record(put("environment.torchattacks", "3.0"))),
    ("robustframe", rehashed(put("environment.robustframe", "9.9"))),
    ("the device", record(put("environment.device", "cuda (H100)"))),
    ("the release of Python", record(put("environment.python", "3.99"))),
    ("the number of threads", record(put("environment.threads", 64))),
    ("erased breaks", both(everybody_robust, rehashed(lambda content: None))),
    ("a sentence of a check", checks(lambda found, _: found[0].update(sentence="Nothing was found."))),
    ("a better figure", checks(lambda found, _: measured(found).update(figure=0.0))),
]
