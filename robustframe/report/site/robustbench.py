"""The numbers in the form of RobustBench's ``model_info``: a JSON file a classifier, in folders by data and norm."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from robustframe.recipe import About
from robustframe.report.layout import one_line
from robustframe.report.site.board import BoardEntry
from robustframe.report.site.facts import Facts

_FOLDERS = {"linf": "Linf", "l2": "L2"}
"""The norms that RobustBench knows, as it names their folders."""
_AUTOATTACK = "standard@1"
"""The battery that is AutoAttack to the letter; no other number may stand under that name."""
Radii = Mapping[tuple[str, str], frozenset[float]]
"""Which radii a site has, by data set and norm."""


def radii(entries: Sequence[BoardEntry]) -> Radii:
    """Return which radii there are of each data set and norm, among all entries of a site."""
    own = [entry for entry in entries if entry.threat.kind == entry.threat.norm]
    return {kind: frozenset(e.threat.eps for e in own if _kind(e) == kind) for kind in map(_kind, own)}


def model_info(entries: Sequence[BoardEntry], page: str, known: Facts, several: Radii) -> dict[str, bytes]:
    """Export the numbers of one model.

    RobustBench's fields are texts in percent. ``autoattack_acc`` is what ``standard`` left, where it was run on all
    examples; what further batteries left of that, or other batteries alone, stands as ``external``, which RobustBench
    ranks by, with its origin in a footnote. What nobody said is an empty text or null.

    A folder is for one threat, as RobustBench ranks all that lies in it: ``model_info/DATA/NORM``, or where a site has
    several radii of that norm ``model_info/EPS/DATA/NORM``. RobustBench takes what stands before the first underscore
    of a file's name for the model, so that there is none.

    Args:
        entries: of one model; unfinished ones and norms that RobustBench does not have are left out.
        page: file name of the model's page, without ending.
        known: about the model.
        several: the radii of the whole site.

    Returns:
        Content of each file by its path inside the site.
    """
    files: dict[str, bytes] = {}
    for entry in entries:
        norm = _FOLDERS.get(entry.threat.norm)
        # RobustBench knows balls, and nothing about targets or valid images.
        if norm is None or entry.result is None or entry.threat.kind != entry.threat.norm:
            continue
        eps, twin = _plain(_eps(entry).replace("/", "-")), f"-{entry.classifier.twin}" if entry.classifier.twin else ""
        top = f"model_info/{eps}" if len(several[_kind(entry)]) > 1 else "model_info"
        name = _without_underscores(f"{page}{twin}-{eps}-{entry.source.place}")
        place = f"{top}/{_plain(entry.run.record.data.use)}/{norm}/{name}.json"
        files[place] = (json.dumps(_fields(entry, known), indent=1) + "\n").encode()
    return files


def _fields(entry: BoardEntry, known: Facts) -> dict[str, Any]:
    record, result, classifier = entry.run.record, entry.result, entry.classifier
    if result is None:
        return {}
    about, card = _about(entry), known.card
    robust, standard = _percent(result.robust_correct, result.examples), _left_by_standard(entry)
    accuracies = {} if standard is None else {"autoattack_acc": _percent(standard, result.examples)}
    if standard != result.robust_correct:
        accuracies["external"] = robust
    extra = about.additional_data
    if extra is None and card is not None and card.trained_on is not None:
        extra = card.trained_on.use != record.data.use
    return {
        "link": about.link or "",
        "name": _text(about.title or classifier.name),
        "authors": _text(", ".join(about.authors)),
        "additional_data": extra,
        "number_forward_passes": 1,
        "dataset": record.data.use,
        "venue": _text(" ".join(str(each) for each in (about.venue, about.year) if each is not None)),
        "architecture": _text(about.architecture or _architecture(entry, known)),
        "eps": _eps(entry),
        "clean_acc": _percent(result.clean_correct, result.examples),
        "reported": robust,
        **accuracies,
        "footnote": f"{result.examples} examples of {record.data.use} {record.data.split}, attacked by "
        f"{entry.source.batteries}, robustframe {record.environment.robustframe}, run {entry.run.name}.",
        "unreliable": entry.verdict != "sound",
    }


def _left_by_standard(entry: BoardEntry) -> int | None:
    """How many examples ``standard`` left, where it met all of them: alone, or as the first of several batteries."""
    batteries, result = [each.cited for each in entry.run.batteries], entry.result
    if result is None or batteries[0] != _AUTOATTACK:
        return None
    if len(batteries) == 1:
        return result.robust_correct
    return result.clean_correct - sum(each.broken for each in result.attacks if each.battery == _AUTOATTACK)


def _about(entry: BoardEntry) -> About:
    """What the recipe says of a model besides where it comes from."""
    classifier = entry.classifier
    if not entry.run.from_python:
        for spec in entry.run.recipe().model:
            if spec.use == classifier.use and spec.name in (None, classifier.model) and spec.about is not None:
                return spec.about
    return About()


def _architecture(entry: BoardEntry, known: Facts) -> str:
    classifier = entry.classifier
    if known.card is None:
        return classifier.use
    sweeps = f", {classifier.sweeps} sweep{'s' if classifier.sweeps != 1 else ''}" if classifier.sweeps else ""
    twin = {"feedforward": ", feed-forward twin", "recurrent": ", recurrent twin", None: ""}[classifier.twin]
    return f"{known.structure} frame{twin}{sweeps}"


def _kind(entry: BoardEntry) -> tuple[str, str]:
    return entry.run.record.data.use, entry.threat.norm


def _eps(entry: BoardEntry) -> str:
    return entry.threat.label.partition(":")[2]


def _text(given: str) -> str:
    """One line without tags: RobustBench's generator writes it into its page as it is."""
    return one_line(given).replace("<", "\u2039").replace(">", "\u203a")


def _percent(right: int, examples: int) -> str:
    return f"{100 * right / examples:.2f}"


def _without_underscores(name: str) -> str:
    """Two names that differ in nothing else keep apart by a mark."""
    mark = f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if "_" in name else ""
    return f"{name.replace('_', '-')}{mark}"


def _plain(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in text).strip(".") or "_"
