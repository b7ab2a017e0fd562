"""The report on a frame as text for a terminal."""

from robustframe.frames import Frame
from robustframe.report.frame import FrameReport, LayerReport

_WIDE = 12
"""Up to so many layers the block picture writes its blocks out."""


def block_picture(frame: Frame) -> str:
    """Draw the global matrix, one row a layer, one column a layer's codes.

    Args:
        frame: the frame.

    Returns:
        Lines of text with a legend: B_j or D_j on the diagonal, what each row reads to the left of it.
    """
    wide = len(frame.blocks) <= _WIDE
    last = len(frame.blocks)
    lines = []
    for j, layer in enumerate(frame.blocks, start=1):
        cells = []
        for k in range(1, last + 1):
            mark = "."
            if k == j:
                mark = "B" if layer.skip is None else "D"
            elif k in layer.sources:
                mark = "-I" if wide else "-"
            elif k == layer.skip:
                mark = "-S" if wide else "s"
            cells.append(mark + str(j) if wide and k == j else mark)
        lines.append("  [" + "".join(f"{cell:>4}" if wide else cell for cell in cells) + " ]")
    legend = [f"  B: synthesis by the layer's atoms; {'-I' if wide else '-'}: code that the row reconstructs"]
    if any(layer.skip is not None for layer in frame.blocks):
        mark = "-S" if wide else "s"
        legend.append(
            f"  D: [B; I], with the code itself below its synthesis; {mark}: skipped code that stands against it"
        )
    return "\n".join([*lines, *legend])


def render_frame(report: FrameReport, frame: Frame) -> str:
    """Write a report out for people.

    Args:
        report: the report.
        frame: the frame it is about.

    Returns:
        Text of several short sections, ending with a newline.
    """
    shape = "x".join(str(side) for side in report.in_shape)
    head = [
        f"{report.name}: {report.about}",
        f"{report.structure} frame, {len(report.layers)} layers, input {shape}, {report.parameters:,} parameters, "
        f"{report.coherence.atoms:,} atoms in {report.coherence.numbers:,} dimensions",
    ]
    sections = [head, ["Structure", block_picture(frame)], _table(report.layers), _coherence(report), _solver(report)]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _table(layers: tuple[LayerReport, ...]) -> list[str]:
    lines = [
        "Layers (coherence: largest within the layer; bound: least possible for unit atoms of this shape)",
        f"  {'':>3} {'operator':<19} {'reads':<11} {'codes':>11} {'parameters':>11} {'norm':>6} {'step':>7} "
        f"{'thresholds':>15} {'coherence':>9} {'bound':>6}",
    ]
    for layer in layers:
        codes = "x".join(str(side) for side in layer.code_shape)
        thresholds = f"{layer.threshold[0]:.3f}..{layer.threshold[2]:.3f}"
        lines.append(
            f"  {layer.number:>3} {layer.operator:<19} {layer.reads:<11} {codes:>11} {layer.parameters:>11,} "
            f"{layer.norm:>6.3f} {layer.step_size:>7.4f} {thresholds:>15} {layer.coherence:>9.4f} {layer.bound:>6.4f}"
        )
    return lines


def _coherence(report: FrameReport) -> list[str]:
    found = report.coherence
    lines = [
        "Coherence of the whole frame (exact, zero-padded borders)",
        f"  mutual coherence            {found.mutual:.6f}   (Welch bound {found.welch:.6f})",
        f"  deep frame potential F^2    {found.deep_frame_potential:.4e}   over {found.nonzeros:,} entries; "
        f"F = {found.deep_frame_potential**0.5:.6f}",
        f"  smallest F^2, unit atoms    {_minimum(report)}",
        f"  frame potential             {found.frame_potential:,.1f}",
    ]
    if report.babel is not None:
        lines.append("  Babel function mu_1(1..)    " + " ".join(f"{value:.3f}" for value in report.babel))
    return lines


def _minimum(report: FrameReport) -> str:
    found = report.minimum
    if found is None:
        return "no formula for this architecture; --minimum optimises it"
    how = "closed form" if found.method == "closed form" else f"optimised, {len(found.values)} restarts"
    ended = "" if found.converged else f", NOT converged (relative gradient {found.gradient:.1e})"
    borders = ", periodic borders; --minimum optimises zero-padded ones" if found.borders == "periodic" else ""
    return f"{found.value:.4e}   ({how}{ended}{borders})"


def _solver(report: FrameReport) -> list[str]:
    if not report.sweeps:
        return []
    lines = [
        f"Deep pursuit on {report.images} (means; active: share of codes that are not zero, by layer)",
        f"  {'sweep':>5} {'objective':>12} {'change':>9}  active",
    ]
    for sweep in report.sweeps:
        change = "" if sweep.change is None else f"{sweep.change:.2e}"
        active = " ".join(f"{share:.3f}" for share in sweep.active)
        lines.append(f"  {sweep.sweep:>5} {sweep.objective:>12.5f} {change:>9}  {active}")
    return lines
