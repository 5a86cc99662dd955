"""The command line as a whole: its verbs, its errors as sentences and exit codes."""

import errno
import os
import sys

import click

from jobs.cli import asking, proving, scanning
from jobs.engine.blas import ONE_THREAD, prefer_wide_kernels
from jobs.engine.heap import ARROW
from jobs.verbs.exitcodes import Exit

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hubspectra")
def cli() -> None:
    """Tell well-trained models from broken ones by their weights alone.

    Reads the weight matrices of models straight from a hub or a disk, computes their exact eigenvalue
    spectra, fits power-law tails, flags what looks wrong, and keeps it all as Parquet for SQL.

    \b
    Start here:
      hubspectra demo                          the whole way on a small hub
      hubspectra scan owner/name --lake lake   scan a model of the Hub
      hubspectra scan ./models --lake lake     scan models on disk
      hubspectra leaderboard --lake lake       compare them
      hubspectra show owner/name --lake lake   one model, worst layers first
    """  # noqa: D301


for _room in (scanning, asking, proving):
    for _verb in vars(_room).values():
        if isinstance(_verb, click.Command):
            cli.add_command(_verb)


def main() -> None:
    """Run the command line; errors become a sentence and an exit code."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run the command line with these arguments; returns its exit code."""
    _settle_libraries()
    from schemas.errors import UsageError

    try:
        code = cli.main(arguments, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        return Exit.USER
    except (BrokenPipeError, SystemExit):  # click and rich turn a closed pipe into SystemExit
        _forget_output()
        return 0
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _forget_output()
        click.echo(
            f"error: {error.filename or 'standard output'}: {error.strerror}; make room and run it again",
            err=True,
        )
        return Exit.USER
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    return code if isinstance(code, int) else 0


def _forget_output() -> None:
    """What waits to be written cannot be; the interpreter would try again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _settle_libraries() -> None:
    """Must come before numpy and pyarrow are imported."""
    for name, value in {**ONE_THREAD, **ARROW}.items():
        os.environ.setdefault(name, value)
    prefer_wide_kernels(os.environ)
