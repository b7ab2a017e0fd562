"""The commands that write a folder to start from."""

from typing import Annotated, Literal

import typer

from robustframe.cli.shared import say

new_app = typer.Typer(help="Write a working folder to start from.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Name of the folder, which must not exist yet.")]


@new_app.command("defence")
def new_defence(name: Name) -> None:
    """Write a defence to start from, with weights, training and recipe."""
    _write("defence", name)


@new_app.command("attack")
def new_attack(name: Name) -> None:
    """Write an attack to start from, with a test, a battery and a recipe."""
    _write("attack", name)


def _write(kind: Literal["attack", "defence"], name: str) -> None:
    from robustframe.templates import write_template

    for file in write_template(kind, name):
        typer.echo(str(file))
    say(f"run it with: robustframe evaluate {name}/recipe.toml; {name}/README.md says the rest")
