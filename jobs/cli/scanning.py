"""Verbs that fill and keep a lake: scan, compare, compact, demo, serve-hub."""

from pathlib import Path
from typing import Any

import click

from jobs.cli.firstuse import tell_of_first_use
from jobs.cli.options import (
    device_option,
    endpoint_option,
    for_people,
    lake_option,
    limit_option,
    output_options,
    rules_options,
)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@lake_option
@endpoint_option
@device_option
@click.option(
    "--engine",
    type=click.Choice(["auto", "local", "ray"]),
    default="auto",
    show_default=True,
    help="auto takes Ray for a cluster, several workers, or more than a minute of work.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Default: one for each core or GPU (Ray), one (local)."
)
@click.option("--ray-address", help="A running Ray cluster: HOST:PORT, ray://HOST:PORT or auto.")
@rules_options
@click.option("--dry-run", is_flag=True, help="Read headers only; tell bytes, time and memory.")
@click.option(
    "--compact/--no-compact",
    default=True,
    help="Merge the small files of a lake of hundreds (default), or not.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, only the summary.")
def scan(targets: tuple[str, ...], **options: Any) -> int:
    """Scan models into a lake.

    TARGET is owner/name, owner/name@revision, a model's folder, a .safetensors file, a folder of models
    laid out owner/name, or a huggingface cache. Run it again to go on where it stopped: finished models
    are not read again, failed ones are tried again.

    A fine-tune is also compared with the base that its card names, which is read too: see the views
    fine_tunes and flags. `base = "off"` under [stages] of --config leaves that out.

    A token is taken from HF_TOKEN or `hf auth login`, for gated and private models and for higher limits.

    \b
    Exit codes: 0 all read; 3 finished, but something failed (named);
                1 your input; 2 usage.
    """  # noqa: D301
    tell_of_first_use()
    from jobs.verbs.scanning import scan as run

    return run(targets, **options)


@click.command(short_help="Hold a fine-tune against its base, layer by layer.")
@click.argument("base", metavar="BASE")
@click.argument("fine_tune", metavar="FINE_TUNE")
@click.option(
    "--lake",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the rows in this lake too.  [default: nothing is kept]",
)
@endpoint_option
@device_option
@rules_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@output_options
@limit_option(1000)
def compare(base: str, fine_tune: str, form: str | None, output: Path | None, **options: Any) -> int:
    """Hold a fine-tune against its base, layer by layer, the worst first.

    Each is owner/name, owner/name@revision, a model's folder or a .safetensors file. Layers are paired by
    name and shape. rel_delta is the change over the base's norm, d_scale the log10 change of the largest
    eigenvalue, d_alpha that of alpha, overlap the share of the ten leading directions that is left, z how
    far d_scale lies from the other layers'. (A scan does the same with the base that a model's card names;
    then see the views fine_tunes and flags.)

    \b
    Exit codes: 0 compared; 3 something failed (named); 1 your input; 2 usage.
    Example: hubspectra compare owner/base owner/tuned --format csv
    """  # noqa: D301
    tell_of_first_use()
    from jobs.verbs.comparing import compare as run

    return run(base, fine_tune, form=form, output=output, brief=for_people(form, output), **options)


@click.command()
@lake_option
@output_options
@click.option("--dry-run", is_flag=True, help="Tell what would be merged, merge nothing.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    help="Seconds that replaced files stay for questions that are under way.",
)
def compact(lake: Path, form: str | None, output: Path | None, dry_run: bool, grace: float) -> None:
    """Merge the many small files of a lake into few large ones.

    Questions get quicker, and their answers stay the same: they may be asked while it runs, and a kill at any
    moment harms nothing. A scan does it by itself once hundreds of small files have come together. Replaced
    files are removed by the next scan or compact after --grace; until then the lake is up to twice as large.
    """
    from jobs.verbs.compacting import tidy
    from jobs.verbs.output import emit

    table, said = tidy(lake, grace, dry_run)
    emit(table, form, output)
    click.echo(said, err=True)


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="Folder with another base model.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the demo's hub and lake lie.  [default: hubspectra-demo]",
)
@click.option("--fresh", is_flag=True, help="Begin anew.")
def demo(model: Path | None, folder: Path | None, fresh: bool) -> int:
    """Scan a small hub of real models, offline, end to end.

    Serves all-MiniLM-L6-v2 and four variants of it (one untrained, one with a collapsed layer) on
    loopback, scans them through the Hub's own client with a local Ray, and shows what came out.
    """
    tell_of_first_use()
    from jobs.verbs.demo import run_demo

    return run_demo(model, folder, fresh)


@click.command("serve-hub", short_help="Serve the models under a folder as a Hub.")
@click.argument("root", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8800, show_default=True)
@click.option("--token", envvar="HUBSPECTRA_HUB_TOKEN", help="Ask clients for it (private and gated models).")
def serve_hub(root: Path, host: str, port: int, token: str | None) -> None:
    """Serve the models under DIR (laid out owner/name) as a Hub, for air-gapped use.

    Any client that honours HF_ENDPOINT can use it.
    """
    from jobs.hub.server import HubServer

    server = HubServer(root, host=host, port=port, token=token)
    server.start()
    click.echo(
        f"serving {root} at {server.endpoint}\n  HF_ENDPOINT={server.endpoint} hubspectra scan owner/name"
    )
    server.serve_forever()
