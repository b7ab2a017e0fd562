"""Cards as text: pairs in a table, and one card to read."""

from collections.abc import Sequence
from typing import Any

from robustframe.report.layout import UNKNOWN, Grid, coherence_text, grid
from robustframe.report.tables import listing, render
from robustframe.terminal import wrapped
from robustframe.zoo import ZOO, Card, names, read_card
from robustframe.zoo.card import BranchedPart


def cards_table(cards: Sequence[Card]) -> Grid:
    """Put pairs into a table, one row each, in the order given."""
    head = ("pair", "parameters", "T", "clean (%)", "at 128", "coherence")
    caption = (
        "Names say data, structure, depth, width and training. Clean accuracy on the test split: after 1 sweep "
        "(feed-forward) and after T (recurrent); at 128 on its first images, where the card says it: a twin that "
        "solves keeps it. Coherence: mutual coherence of the frame. `robustframe zoo show NAME` shows a card."
    )
    rows = [
        (card.name, f"{card.parameters:,}", str(card.sweeps), f"{_clean(card, 1)} | {_clean(card, card.sweeps)}",
         _settled(card), coherence_text(card.mutual_coherence))
        for card in cards
    ]  # fmt: skip
    return grid(f"{len(cards)} pairs", head, rows, caption, left=(0,))


def _settled(card: Card) -> str:
    value = None if card.settling is None else card.settling.accuracy.get("128")
    return UNKNOWN if value is None else f"{100 * value:.1f}"


def _clean(card: Card, sweeps: int) -> str:
    value = card.clean_accuracy.by_sweeps.get(str(sweeps))
    return UNKNOWN if value is None else f"{100 * value:.1f}"


def card_text(card: Card) -> str:
    """Write a card for people; as JSON it has everything."""
    stated, data = card.clean_accuracy, card.trained_on
    clean = ", ".join(f"{100 * value:.2f} % at {sweeps}" for sweeps, value in stated.by_sweeps.items())
    shape = " x ".join(map(str, card.in_shape))
    facts = {
        "structure": f"{card.structure}, {len(card.layers)} layers on {shape}, {card.classes} classes",
        "layers": "; ".join(_layer(layer) for layer in card.layers),
        "parameters": f"{card.parameters:,}",
        "sweeps": f"{card.sweeps}, a frame for each"
        if card.untied
        else f"{card.sweeps} of {card.pursuit} pursuit by the recurrent twin; 1 is the feed-forward twin",
        "trained for": trained(card),
        "clean accuracy": f"{clean} sweeps, on {stated.count:,} images of {stated.use} {stated.split}",
        "coherence": f"{card.mutual_coherence:.6f}",
        "potential": UNKNOWN if card.potential is None else f"{card.potential:.6f}",
        "least potential": UNKNOWN
        if card.least_potential is None
        else f"{card.least_potential.value:.6f} of this architecture ({card.least_potential.method})",
        **_solving(card),
        "trained on": f"{data.count:,} images of {data.use} {data.split}, seed {card.seed}",
        "made with": ", ".join(f"{key} {value}" for key, value in card.made_with.items()),
        "licence": card.licence,
        "weights": card.weights,
        "SHA-256": card.sha256,
    }
    head = "\n".join(wrapped(f"{card.name}: {card.about}"))
    return f"{head}\n\n{listing(facts.items())}"


def _solving(card: Card) -> dict[str, str]:
    """How near the twins are to a solution, what their layers are like, and how robust they are, where a card says."""
    facts = {}
    if card.settling is not None:
        after = (f"{value:.3g} at {sweeps}" for sweeps, value in card.settling.violation.items())
        right = (f"{100 * value:.1f} % at {sweeps}" for sweeps, value in card.settling.accuracy.items())
        facts["optimality"] = f"violated by {', '.join(after)} sweeps (medians of {card.settling.count} test images)"
        facts["the same images"] = f"right on {', '.join(right)} sweeps"
    for j, layer in enumerate(card.measured or [], start=1):
        active = f"{100 * layer.active:.1f} % of codes active"
        facts[f"layer {j}"] = f"threshold {layer.threshold:.3g}, {active}, coherence {layer.coherence:.3f}"
    for robust in card.robust_accuracy or []:
        values = (f"{100 * value:.1f} % at {sweeps}" for sweeps, value in robust.by_sweeps.items())
        facts[f"robust, {robust.threat}"] = f"{', '.join(values)} sweeps, {robust.battery} on {robust.count} images"
    return facts


def zoo_table() -> str:
    """Write the cards of all shipped pairs as a Markdown table, one line per pair."""
    head = (
        "Name", "Frame", "Parameters", "Trained", "Sweeps", "Clean (%) at 1", "at T", "at 2 T", "at 128", "Coherence",
        "Potential", "Least", "Seconds",
    )  # fmt: skip
    rows = [_zoo_row(read_card(ZOO / f"{name}.json")) for name in names()]
    return render(grid("", head, rows, left=(0, 1, 3)), "md")


def _zoo_row(card: Card) -> tuple[str, ...]:
    curve, least = card.learning_curve, card.least_potential
    return (
        card.name, _frame(card), f"{card.parameters:,}", trained(card), str(card.sweeps),
        *(_clean(card, sweeps) for sweeps in (1, card.sweeps, 2 * card.sweeps)), _settled(card),
        coherence_text(card.mutual_coherence),
        UNKNOWN if card.potential is None else f"{card.potential:.4f}",
        UNKNOWN if least is None else f"{least.value:.4f}",
        UNKNOWN if curve is None else f"{sum(curve.seconds):,.0f}",
    )  # fmt: skip


def _layer(layer: dict[str, int] | BranchedPart) -> str:
    if not isinstance(layer, BranchedPart):
        return ", ".join(f"{key} {value}" for key, value in layer.items())
    reads = " and ".join(dict.fromkeys("x" if part.reads == 0 else f"w{part.reads}" for part in layer.branches))
    return f"{'x'.join(map(str, layer.code))} from {reads}"


def _frame(card: Card) -> str:
    sizes = [
        layer.code[0] if isinstance(layer, BranchedPart) else layer.get("filters", layer.get("atoms", 0))
        for layer in card.layers
    ]
    widths = f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else "-".join(map(str, sizes))
    first = card.layers[0]
    dense = len(first.code) == 1 if isinstance(first, BranchedPart) else "atoms" in first
    kind = "fully connected" if dense else card.structure
    return f"{kind} {widths}{', residual' if kind != card.structure == 'residual' else ''}"


def trained(card: Card) -> str:
    """Say in a few words what a pair was trained for, such as ``"both twins, linf:0.1"``."""
    # A card comes from anybody, and its recipe may hold anything.
    stated = str(_part(card, "schedule").get("arm", "joint"))
    what = {"joint": "both twins", "feedforward": "one sweep", "recurrent": "all sweeps"}.get(stated, stated)
    pursuit = "untied" if card.untied else "layered" if card.pursuit == "layered" else ""
    adversary = str(_part(card, "adversary").get("threat", ""))
    return ", ".join(part for part in (what, pursuit, adversary) if part)


def _part(card: Card, name: str) -> dict[str, Any]:
    part = card.recipe.get(name)
    return part if isinstance(part, dict) else {}
