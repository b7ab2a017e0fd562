"""The report on a frame as text for a terminal."""

from robustframe.frames import Frame
from robustframe.report.frame import FrameReport
from robustframe.report.layout import grid
from robustframe.report.tables import listing, render
from robustframe.terminal import fitted

_WIDE = 12
"""Up to so many layers the block picture writes its blocks out."""


def block_picture(frame: Frame) -> str:
    """Draw the global matrix, one row per layer, one column per layer's codes.

    Args:
        frame: the frame.

    Returns:
        Lines of text with a legend: B_j or D_j on the diagonal, what each row reads to the left of it.
    """
    wide = len(frame.blocks) <= _WIDE
    read, skipped = ("-I", "-S") if wide else ("-", "s")
    lines = []
    for j, layer in enumerate(frame.blocks, start=1):
        marks: dict[int | None, str] = {layer.skip: skipped, **dict.fromkeys(layer.sources, read)}
        marks[j] = ("B" if layer.skip is None else "D") + (str(j) if wide else "")
        cells = [marks.get(k, ".") for k in range(1, len(frame.blocks) + 1)]
        lines.append("  [" + "".join(f"{cell:>4}" if wide else cell for cell in cells) + " ]")
    lines.append(f"  B: synthesis by the layer's atoms; {read}: code that the row reconstructs")
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
    coherence = f"Coherence of the whole frame (exact, zero-padded borders)\n{listing(_coherence(report))}"
    sections = [head, f"Structure\n{block_picture(frame)}\n", _layers(report), coherence, _solver(report)]
    return "\n".join(filter(None, sections))


def _layers(report: FrameReport) -> str:
    head = ("Layer", "operator", "reads", "codes", "parameters", "norm", "step", "thresholds", "coherence", "bound")
    rows = [
        (str(each.number), each.operator, each.reads, "x".join(map(str, each.code_shape)), f"{each.parameters:,}",
         f"{each.norm:.3f}", f"{each.step_size:.4f}", f"{each.threshold[0]:.3f}..{each.threshold[2]:.3f}",
         f"{each.coherence:.4f}", f"{each.bound:.4f}")
        for each in report.layers
    ]  # fmt: skip
    caption = "Coherence: largest within the layer. Bound: least possible for unit atoms of this shape."
    return render(grid("Layers", head, rows, caption, left=(1, 2)), "terminal")


def _coherence(report: FrameReport) -> list[tuple[str, str]]:
    found = report.coherence
    rows = [
        ("mutual coherence", f"{found.mutual:.6f}   (Welch bound {found.welch:.6f})"),
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


def _minimum(report: FrameReport) -> str:
    found = report.minimum
    if found is None:
        return "no formula for this architecture; --minimum optimises it"
    how = "closed form" if found.method == "closed form" else f"optimised, {len(found.values)} restarts"
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
