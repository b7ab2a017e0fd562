"""The shipped pairs as a table."""

from robustframe.zoo import ZOO, Card, names, read_card


def zoo_table() -> str:
    """Write the cards of all shipped pairs as a Markdown table, one line a pair."""
    head = ["Name", "Frame", "Parameters", "Trained", "Sweeps", "Clean (%) at 1", "at T", "at 2 T"]
    head += ["Coherence", "Potential", "Least", "Seconds"]
    lines = ["| " + " | ".join(head) + " |", "| :-- | :-- | --: | :-- |" + " --: |" * 8]
    lines += ["| " + " | ".join(_cells(read_card(ZOO / f"{name}.json"))) + " |" for name in names()]
    return "\n".join(lines)


def _cells(card: Card) -> list[str]:
    by_sweeps = card.clean_accuracy.by_sweeps
    accuracies = [by_sweeps.get(str(n)) for n in (1, card.sweeps, 2 * card.sweeps)]
    curve, least = card.learning_curve, card.least_potential
    return [
        f"`{card.name}`",
        _frame(card),
        f"{card.parameters:,}",
        trained(card),
        str(card.sweeps),
        *("–" if each is None else f"{100 * each:.1f}" for each in accuracies),
        f"{card.mutual_coherence:.3f}",
        "–" if card.potential is None else f"{card.potential:.4f}",
        "–" if least is None else f"{least.value:.4f}",
        "–" if curve is None else f"{sum(curve.seconds):,.0f}",
    ]


def _frame(card: Card) -> str:
    sizes = [layer.get("filters", layer.get("atoms", 0)) for layer in card.layers]
    widths = f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else "-".join(map(str, sizes))
    kind = "fully connected" if "atoms" in card.layers[0] else card.structure
    return f"{kind} {widths}{', residual' if kind != card.structure == 'residual' else ''}"


def trained(card: Card) -> str:
    """Say in a few words what a pair was trained for, such as ``"both twins, linf:0.1"``."""
    what = {"joint": "both twins", "first": "one sweep", "last": "all sweeps"}[
        card.recipe["schedule"].get("trained_for", "joint")
    ]
    pursuit = "untied" if card.untied else "layered" if card.pursuit == "layered" else ""
    adversary = (card.recipe.get("adversary") or {}).get("threat", "")
    return ", ".join(part for part in (what, pursuit, adversary) if part)
