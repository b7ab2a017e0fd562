"""The report on a frame as text for a terminal."""

from robustframe.frames import Frame
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.coherence import Coherence
from robustframe.report.frame import FrameReport
from robustframe.report.layout import grid
from robustframe.report.tables import listing, render
from robustframe.terminal import fitted

_WIDE, _MOST = 12, 70
"""Up to so many layers the block picture writes its blocks out, and up to so many there is one."""


def block_picture(frame: Frame) -> str:
    """Draw the global matrix, one row per layer, one column per layer's codes.

    Args:
        frame: the frame.

    Returns:
        Lines of text with a legend: B_j or D_j on the diagonal, what each row reads to the left of it.
    """
    if len(frame.blocks) > _MOST:
        return f"  {len(frame.blocks)} rows are too many to draw here; --plot draws the Gram"
    wide = len(frame.blocks) <= _WIDE
    read, skipped = ("-I", "-S") if wide else ("-", "s")
    lines = []
    for j, layer in enumerate(frame.blocks, start=1):
        marks: dict[int | None, str] = {layer.skip: skipped, **dict.fromkeys(layer.sources, read)}
        branched = isinstance(frame, BranchedFrame) and len(frame.branches(j)) > 1
        marks[j] = ("D" if branched or layer.skip is not None else "B") + (str(j) if wide else "")
        cells = [marks.get(k, ".") for k in range(1, len(frame.blocks) + 1)]
        lines.append("  [" + "".join(f"{cell:>4}" if wide else cell for cell in cells) + " ]")
    lines.append(f"  B: synthesis by the layer's atoms; {read}: code that the row reconstructs")
    if isinstance(frame, BranchedFrame) and any(len(specs) > 1 for specs in frame.specs):
        lines.append("  D: the layer's branches below one another, each against a code that the row reconstructs")
    if any(layer.skip is not None for layer in frame.blocks):
        lines.append(
            f"  D: [B; I], with the code itself below its synthesis; {skipped}: skipped code that stands against it"
        )
    return "\n".join(lines)


def render_frame(report: FrameReport, frame: Frame) -> str:
    """Write a report out for people.

    Args:
        report: the report.
        frame: the frame it is about.

    Returns:
        Text of several short sections, ending with a newline.
    """
    shape = "x".join(str(side) for side in report.in_shape)
    head = fitted(
        f"{report.name}: {report.about}\n"
        f"{report.structure} frame, {len(report.layers)} layers, input {shape}, {report.parameters:,} parameters, "
        f"{report.coherence.atoms:,} atoms in {report.coherence.numbers:,} dimensions\n"
    )
    measured = fitted(f"Coherence of the whole frame, unit atoms ({_exactly(frame)})\n")
    coherence = measured + listing(_coherence(report))
    sections = [
        head, f"Structure\n{block_picture(frame)}\n", _layers(report), coherence, _notes(report), _solver(report)
    ]  # fmt: skip
    return "\n".join(filter(None, sections))


def _exactly(frame: Frame) -> str:
    if isinstance(frame, BranchedFrame) and frame.selects:
        return "exact but for which pixels max pooling chooses at the border"
    return "exact, zero-padded borders"


def _layers(report: FrameReport) -> str:
    named = any(each.name for each in report.layers)
    head = ("Layer", *(("made by",) if named else ()), "operator", "reads", "codes")
    rows = [
        (str(each.number), *((each.name,) if named else ()), each.operator, each.reads,
         "x".join(map(str, each.code_shape)))
        for each in report.layers
    ]  # fmt: skip
    built = render(grid("Layers", head, rows, "", left=(1, 2, 3) if named else (1, 2)), "terminal")
    head = ("Layer", "parameters", "norm", "step", "thresholds", "coherence", "bound")
    rows = [
        (str(each.number), f"{each.parameters:,}", f"{each.norm:.3f}", f"{each.step_size:.4f}",
         f"{_near(each.threshold[0])}..{_near(each.threshold[2])}",
         f"{each.coherence:.4f}", "" if each.bound is None else f"{each.bound:.4f}")
        for each in report.layers
    ]  # fmt: skip
    caption = (
        "Coherence: largest inner product of two of the layer's own unit atoms, away from "
        "borders. Bound: least possible for unit atoms of this shape. Both are of the layer "
        "alone, not of the whole frame."
    )
    return f"{built}\n{render(grid('Layers alone', head, rows, caption), 'terminal')}"


def _near(threshold: float) -> str:
    """A threshold, without the sign of a zero."""
    return f"{threshold + 0.0 if abs(threshold) >= _HALF else 0.0:.3f}"


_HALF = 5e-4


def _notes(report: FrameReport) -> str:
    lines = []
    equal = [str(each.number) for each in report.layers if each.coherence >= 1 - 1e-6]
    if equal:
        lines.append(f"Two atoms of layer {', '.join(equal)} are the same up to a factor (coherence 1).")
    if any(each.threshold[0] < 0 for each in report.layers):
        lines.append(
            "Some thresholds are negative: they reward a code instead of charging for it. "
            "The problem stays convex, but need not have a solution, and no certificate covers it."
        )
    for each in report.unread[:_SHOWN]:
        lines.append(f"No frame: {each.name} ({each.why})")
    if len(report.unread) > _SHOWN:
        lines.append(f"No frame: {len(report.unread) - _SHOWN} more; --json lists them")
    if report.why_no_pair is not None:
        lines.append(f"No recurrent twin: {report.why_no_pair}")
    return fitted("".join(f"{line}\n" for line in lines))


_SHOWN = 5
"""Layers of a network that are no frame and are named one by one."""


def _coherence(report: FrameReport) -> list[tuple[str, str]]:
    found = report.coherence
    rows = [
        ("mutual coherence", f"{found.mutual:.6f}   ({_between(found)}; Welch bound {found.welch:.6f})"),
        (
            "deep frame potential F^2",
            f"{found.deep_frame_potential:.4e}   over {found.nonzeros:,} entries; "
            f"F = {found.deep_frame_potential**0.5:.6f}",
        ),
        ("smallest F^2, unit atoms", _minimum(report)),
        ("frame potential", f"{found.frame_potential:,.1f}"),
    ]
    if report.babel is not None:
        rows.append(("Babel function mu_1(1..)", " ".join(f"{value:.3f}" for value in report.babel)))
    return rows


def _between(found: Coherence) -> str:
    i, j = found.between
    return f"within layer {i}" if i == j else f"between layers {i} and {j}"


def _minimum(report: FrameReport) -> str:
    found = report.minimum
    if found is None:
        return "no formula for this architecture; --minimum optimises it"
    how = f"optimised, {len(found.values)} restarts" if found.method == "optimised" else found.method
    ended = "" if found.converged else f", NOT converged (relative gradient {found.gradient:.1e})"
    borders = ", periodic borders; --minimum optimises zero-padded ones" if found.borders == "periodic" else ""
    return f"{found.value:.4e}   ({how}{ended}{borders})"


def _solver(report: FrameReport) -> str:
    if not report.sweeps:
        return ""
    rows = [
        (str(each.sweep), f"{each.objective:.5f}", "" if each.change is None else f"{each.change:.2e}",
         " ".join(f"{share:.3f}" for share in each.active))
        for each in report.sweeps
    ]  # fmt: skip
    caption = f"Deep pursuit on {report.images}, means. Active: share of codes that are not zero, by layer."
    return render(grid("Solver", ("Sweep", "objective", "change", "active"), rows, caption, left=(3,)), "terminal")
