"""Options that several verbs share."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FORMATS = ("table", "csv", "json", "parquet")

Command = Callable[..., Any]


def lake_option(command: Command) -> Command:
    return click.option(
        "--lake",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("lake"),
        envvar="HUBSPECTRA_LAKE",
        show_default=True,
        show_envvar=True,
        help="Folder with the results.",
    )(command)


def output_options(command: Command) -> Command:
    command = click.option(
        "--format", "form", type=click.Choice(FORMATS), help="Default: a table on a terminal, CSV in a pipe."
    )(command)
    return click.option(
        "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead."
    )(command)


def limit_option(default: int) -> Callable[[Command], Command]:
    return click.option(
        "--limit", type=click.IntRange(1), default=default, show_default=True, help="Rows at most."
    )


def for_people(form: str | None, output: Path | None) -> bool:
    """Whether the answer is a table on a terminal."""
    return output is None and (form == "table" or (form is None and sys.stdout.isatty()))
