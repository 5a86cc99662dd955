"""Verbs that prove the numbers: study and bench."""

import os
from pathlib import Path
from typing import Any

import click

from jobs.cli.firstuse import tell_of_first_use
from jobs.cli.options import for_people, format_option, output_options
from jobs.engine.blas import ONE_THREAD
from jobs.verbs.exitcodes import Exit


@click.command(short_help="Run validation experiments: expected against found.")
@click.argument("names", nargs=-1, metavar="NAME...|all")
@click.option("--list", "listed", is_flag=True, help="Say which studies there are.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for a report with figures."
)
@click.option("--quick", is_flag=True, help="Fewer draws; all then means those with a quick form.")
@format_option
def study(names: tuple[str, ...], listed: bool, out: Path | None, quick: bool, form: str | None) -> int:
    """Run validation experiments and compare what comes out with what is expected.

    Random matrices of known kind, published tables, trained nets, real checkpoints: each study prints its
    checks with expected value, result, tolerance and source. All offline, seeded and repeatable.

    \b
    Examples: hubspectra study --list
              hubspectra study phases noise
              hubspectra study all --out docs/studies
    Those of trained nets need pip install 'hubspectra[studies]'.

    \b
    Exit codes: 0 no check fails; 3 a check fails; 1 your input; 2 usage.

    A study that lacks a package or data says what it needs and is not run; that is no failure. A check that
    deviates is off by more than its tolerance for a reason that was looked into and is told.
    """  # noqa: D301
    tell_of_first_use()
    from jobs.verbs.studying import study as run

    return run(names, listed, out, quick, form)


@click.command(short_help="Measure hubspectra side by side with its peers.")
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@click.option("--list", "listed", is_flag=True, help="Name the cases and what each aims at.")
@click.option("--pairs", type=click.IntRange(1), default=5, show_default=True, help="Runs of each side.")
@click.option("--quick", is_flag=True, help="Small sizes, two pairs: under a minute.")
@click.option(
    "--models",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HUBSPECTRA_MODELS",
    default=Path("../shared/models"),
    show_default=True,
    show_envvar=True,
    help="Folder of sample models, laid out owner/name.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write machine and results."
)
@click.option("--page", "page_file", type=click.Path(path_type=Path, dir_okay=False), help="Write Markdown.")
@click.option("--strict", is_flag=True, help="Exit 3 when a target is missed or numbers differ.")
@output_options
def bench(cases: tuple[str, ...], listed: bool, form: str | None, output: Path | None, **options: Any) -> int:
    """Measure hubspectra side by side with its peers, and against its own targets.

    Every comparison first checks that both sides give the same numbers, then times them in turn on one
    thread. Without CASE all run, which takes about ten minutes of a quiet machine.

    The peers are an extra: pip install 'hubspectra[peers]'. Without them their cases say so.

    \b
    Example: hubspectra bench tail-fit minilm --pairs 7
             hubspectra bench --json benchmarks.json --page benchmarks.md
    """  # noqa: D301
    os.environ.update(ONE_THREAD)
    tell_of_first_use()
    from jobs.bench.run import bench as run
    from jobs.bench.run import catalogue
    from jobs.verbs.output import emit

    if listed:
        emit(catalogue(), form, output)
        return Exit.OK
    return run(cases, form=form, output=output, brief=for_people(form, output), **options)
