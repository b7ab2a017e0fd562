"""The numbers in the form of RobustBench's ``model_info``: a JSON file a classifier, in folders by data and norm."""

import json
from collections.abc import Sequence
from typing import Any

from robustframe.report.layout import one_line
from robustframe.report.site.board import BoardEntry
from robustframe.report.site.facts import Facts

_FOLDERS = {"linf": "Linf", "l2": "L2"}
"""The norms that RobustBench knows, as it names their folders."""
_AUTOATTACK = "standard"
"""The battery that is AutoAttack to the letter; no other number may stand under that name."""


def model_info(entries: Sequence[BoardEntry], page: str, known: Facts) -> dict[str, bytes]:
    """Export the numbers of one model.

    RobustBench's fields are texts in percent. What a record does not know is an empty text or null; a number that was
    not found with ``standard`` stands as ``external``, which RobustBench ranks by too, with its origin in a footnote.

    Args:
        entries: of one model; unfinished ones and norms that RobustBench does not have are left out.
        page: file name of the model's page, without ending.
        known: about the model.

    Returns:
        Content of each file by its path inside the site.
    """
    files: dict[str, bytes] = {}
    for entry in entries:
        norm = _FOLDERS.get(entry.threat.norm)
        if norm is None or entry.result is None:
            continue
        twin = f"_{entry.classifier.twin}" if entry.classifier.twin else ""
        eps = entry.threat.label.partition(":")[2].replace("/", "-")
        place = f"model_info/{_plain(entry.run.record.data.use)}/{norm}"
        name = f"{place}/{page}{twin}_{_plain(eps)}_{entry.source.place}.json"
        files[name] = (json.dumps(_fields(entry, known), indent=1) + "\n").encode()
    return files


def _fields(entry: BoardEntry, known: Facts) -> dict[str, Any]:
    record, result, classifier = entry.run.record, entry.result, entry.classifier
    if result is None:
        return {}
    robust = _percent(result.robust_correct, result.examples)
    standard = [each["name"] for each in record.batteries] == [_AUTOATTACK]
    trained_on = known.card.trained_on.use if known.card is not None else None
    sweeps = f", {classifier.sweeps} sweep{'s' if classifier.sweeps != 1 else ''}" if classifier.sweeps else ""
    twin = {"feedforward": ", feed-forward twin", "recurrent": ", recurrent twin", None: ""}[classifier.twin]
    return {
        "link": "",
        "name": one_line(classifier.name),
        "authors": "",
        "additional_data": None if trained_on is None else trained_on != record.data.use,
        "number_forward_passes": 1,
        "dataset": record.data.use,
        "venue": "",
        "architecture": f"{known.structure} frame{twin}{sweeps}"
        if known.card is not None
        else one_line(classifier.use),
        "eps": entry.threat.label.partition(":")[2],
        "clean_acc": _percent(result.clean_correct, result.examples),
        "reported": robust,
        ("autoattack_acc" if standard else "external"): robust,
        "footnote": f"{result.examples} examples of {record.data.use} {record.data.split}, attacked by "
        f"{entry.source.batteries}, robustframe {record.environment.robustframe}, run {entry.run.name}.",
        "unreliable": entry.verdict in ("suspicious", "unfinished"),
    }


def _percent(right: int, examples: int) -> str:
    return f"{100 * right / examples:.2f}"


def _plain(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in text).strip(".") or "_"
