"""Options that several verbs share."""

import os
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


def endpoint_option(command: Command) -> Command:
    return click.option(
        "--endpoint",
        envvar="HF_ENDPOINT",
        default="https://huggingface.co",
        show_default=True,
        callback=_the_only_one,
        help="Hub.",
    )(command)


def _the_only_one(_: click.Context, __: click.Parameter, endpoint: str) -> str:
    """huggingface_hub asks for more than models, and asks the hub of its environment, read at its import."""
    os.environ["HF_ENDPOINT"] = endpoint
    return endpoint


def device_option(command: Command) -> Command:
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="cuda: one GPU a worker, fits on the host; auto takes it where torch sees a GPU.",
    )(command)


def rules_options(command: Command) -> Command:
    command = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="TOML with overrides of any rule or threshold.",
    )(command)
    return click.option(
        "--profile",
        type=click.Choice(["default", "full", "weightwatcher"]),
        default="default",
        show_default=True,
    )(command)


def format_option(command: Command) -> Command:
    return click.option(
        "--format", "form", type=click.Choice(FORMATS), help="Default: a table on a terminal, CSV in a pipe."
    )(command)


def file_option(what: str = "Write to a file instead.") -> Callable[[Command], Command]:
    return click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help=what)


def output_options(command: Command) -> Command:
    return file_option()(format_option(command))


def limit_option(default: int) -> Callable[[Command], Command]:
    return click.option(
        "--limit", type=click.IntRange(1), default=default, show_default=True, help="Rows at most."
    )


def for_people(form: str | None, output: Path | None) -> bool:
    """Whether the answer is a table on a terminal."""
    return output is None and (form == "table" or (form is None and sys.stdout.isatty()))
