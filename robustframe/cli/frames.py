"""`robustframe frame` and `robustframe rank`: frames, and what their structure alone says."""

from pathlib import Path
from typing import Annotated

import typer

from robustframe.cli.shared import AsJson, DataRoot, Download, json_text, parsed_normalise, parsed_shape, say


def frame(
    model: Annotated[
        str,
        typer.Argument(
            help="zoo:NAME, card:PATH.json, hf:OWNER/REPO; a network, such as torchvision:resnet18 or "
            "file:net.py:build; or an architecture, such as resnet20."
        ),
    ],
    weights: Annotated[str | None, typer.Option(help="Of a network: its checkpoint.")] = None,
    shape: Annotated[str | None, typer.Option(help="Of a network: shape of one image, such as 1x28x28.")] = None,
    data: Annotated[str | None, typer.Option(help="Run the solver on test images of this data set.")] = None,
    classes: Annotated[int | None, typer.Option(help="Of a network by name: its logits.")] = None,
    channels: Annotated[int | None, typer.Option(help="Of a network for colour on grey images: its channels.")] = None,
    normalise: Annotated[str | None, typer.Option(help="Of a network: MEAN/STD in front of it.")] = None,
    minimum: Annotated[
        bool, typer.Option("--minimum", help="Optimise the least deep frame potential; minutes for large frames.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw |Gram| into this .svg, .pdf or .png file.")] = None,
    filters: Annotated[
        Path | None,
        typer.Option(help="Draw the atoms into such a file: of a chain every layer, else the first."),
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Report on the frame of a pair, a network or an architecture: structure, coherence, potential, solver."""
    from robustframe.data import load
    from robustframe.recipe import Normalise, typed
    from robustframe.report.frame import find_frame, measure_frame
    from robustframe.report.frame_text import render_frame

    drawn = [each for each in (plot, filters) if each is not None]
    if drawn:
        from robustframe.report.figures import check_path, filters_figure, gram_figure, write

        for path in drawn:
            check_path(path)
    examples = None if data is None else load(data, "test", data_root=data_root, download=download)
    sides = parsed_shape(shape) or (None if examples is None or ":" not in model else tuple(examples.images.shape[1:]))
    paired = model.partition(":")[0] in ("zoo", "card", "hf")
    found = find_frame(
        model, weights=weights, classes=classes, channels=channels, shape=None if paired else sides,
        normalise=None if normalise is None else typed(Normalise, parsed_normalise(normalise)), download=download,
    )  # fmt: skip
    report = measure_frame(found, minimum=minimum, data=examples)
    text = json_text(report.to_json()) + "\n" if as_json else render_frame(report, found.frame)
    typer.echo(text, nl=False)
    if plot is not None:
        write(gram_figure(found.frame, title=f"|Gram| of {report.name}"), plot)
    if filters is not None:
        drawing = ", drawn at random" if found.drawn else ""
        write(filters_figure(found.frame, title=f"Atoms of {report.name}{drawing}"), filters)
    for path in drawn:
        say(f"plot: {path}")


def rank(
    architectures: Annotated[
        list[str],
        typer.Argument(help="Names such as resnet20 or fc-200-100, torchvision:NAME, file:net.py:build, zoo:NAME."),
    ],
    shape: Annotated[str | None, typer.Option(help="Of networks: shape of one image, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Of networks by name: their logits.")] = None,
    optimise: Annotated[
        bool, typer.Option("--optimise", help="Minimise for zero-padded borders; minutes for large ones.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it over parameters into this .svg, .pdf or .png file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank architectures by the least deep frame potential that their structure allows; no data, no training."""
    from robustframe.report.rank import rank_architectures, render_ranks

    if plot is not None:
        from robustframe.report.figures import check_path, rank_figure, write

        check_path(plot)
    count = len(architectures)
    ranks = rank_architectures(
        architectures, shape=parsed_shape(shape), classes=classes, optimise=optimise,
        report=lambda at, name: say(f"{at + 1} of {count}: {name}") if optimise else None,
    )  # fmt: skip
    typer.echo(json_text([each.to_json() for each in ranks]) + "\n" if as_json else render_ranks(ranks), nl=False)
    if plot is not None:
        write(rank_figure(ranks), plot)
        say(f"plot: {plot}")
