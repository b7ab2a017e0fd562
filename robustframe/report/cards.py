"""Cards as text: pairs in a table, and one card to read."""

from collections.abc import Sequence

from robustframe.report.grid import Grid
from robustframe.report.layout import UNKNOWN
from robustframe.zoo import Card

_HEAD = ("pair", "data", "structure", "layers", "parameters", "sweeps", "clean (%)", "coherence")


def cards_table(cards: Sequence[Card]) -> Grid:
    """Put pairs into a table, one row each, in the order given."""
    return Grid(
        title=f"{len(cards)} pairs",
        head=_HEAD,
        rows=tuple(_row(card) for card in cards),
        caption="Clean accuracy on the test split: after 1 sweep (feed-forward) and after all sweeps (recurrent). "
        "Coherence: mutual coherence of the frame. `robustframe zoo show NAME` shows a card.",
    )


def _row(card: Card) -> tuple[str, ...]:
    return (
        card.name, card.trained_on.use, card.structure, str(len(card.layers)), f"{card.parameters:,}",
        str(card.sweeps), f"{_clean(card, 1)} | {_clean(card, card.sweeps)}", f"{card.mutual_coherence:.3f}",
    )  # fmt: skip


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
        "layers": "; ".join(", ".join(f"{key} {value}" for key, value in layer.items()) for layer in card.layers),
        "parameters": f"{card.parameters:,}",
        "sweeps": f"{card.sweeps} of the recurrent twin; 1 is the feed-forward twin",
        "clean accuracy": f"{clean} sweeps, on {stated.count:,} images of {stated.use} {stated.split}",
        "coherence": f"{card.mutual_coherence:.6f}",
        "trained on": f"{data.count:,} images of {data.use} {data.split}, seed {card.seed}",
        "made with": ", ".join(f"{key} {value}" for key, value in card.made_with.items()),
        "licence": card.licence,
        "weights": card.weights,
        "SHA-256": card.sha256,
    }
    width = max(map(len, facts))
    lines = [f"{key:<{width}}  {value}" for key, value in facts.items()]
    return "\n".join([f"{card.name}: {card.about}", "", *lines]) + "\n"
