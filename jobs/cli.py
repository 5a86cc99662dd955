"""The command line: one function a verb; every heavy import waits until its verb runs."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from jobs.blas import prefer_wide_kernels
from jobs.exitcodes import Exit

_FORMATS = ("table", "csv", "json", "parquet")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Command = Callable[..., Any]


def _lake_option(command: Command) -> Command:
    return click.option(
        "--lake",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("lake"),
        envvar="HUBSPECTRA_LAKE",
        show_default=True,
        show_envvar=True,
        help="Folder with the results.",
    )(command)


def _output_options(command: Command) -> Command:
    command = click.option(
        "--format", "form", type=click.Choice(_FORMATS), help="Default: a table on a terminal, CSV in a pipe."
    )(command)
    return click.option(
        "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead."
    )(command)


def _limit_option(default: int) -> Callable[[Command], Command]:
    return click.option(
        "--limit", type=click.IntRange(1), default=default, show_default=True, help="Rows at most."
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hubspectra")
def cli() -> None:
    """Tell well-trained models from broken ones by their weights alone.

    Reads the weight matrices of models straight from a hub or a disk, computes their exact eigenvalue
    spectra, fits power-law tails, flags what looks wrong, and keeps it all as Parquet for SQL.

    \b
    Start here:
      hubspectra demo                                the whole way on a small offline hub
      hubspectra scan owner/name --lake lake         scan a model of the Hub
      hubspectra scan ./models --lake lake           scan models on disk
      hubspectra leaderboard --lake lake             compare them
      hubspectra show owner/name --lake lake         one model, worst layers first
    """  # noqa: D301


@cli.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@_lake_option
@click.option(
    "--endpoint", envvar="HF_ENDPOINT", default="https://huggingface.co", show_default=True, help="Hub."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="cuda: one GPU a worker, fits on the host; auto takes it where torch sees a GPU.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "local", "ray"]),
    default="auto",
    show_default=True,
    help="auto takes Ray for a cluster, several workers, or minutes of work.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Default: one for each core or GPU (Ray), one (local)."
)
@click.option("--ray-address", help="A running Ray cluster: HOST:PORT, ray://HOST:PORT or auto.")
@click.option(
    "--profile", type=click.Choice(["default", "full", "weightwatcher"]), default="default", show_default=True
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML with overrides of any rule or threshold.",
)
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
    Exit codes: 0 all read; 3 finished, but something failed (named); 1 your input; 2 usage.
    """  # noqa: D301
    from jobs.commands import scan as run

    return run(targets, **options)


@cli.command()
@_lake_option
@_output_options
@_limit_option(100)
def leaderboard(lake: Path, form: str | None, output: Path | None, limit: int) -> None:
    """Rank models inside strata of comparable ones.

    Lower alpha_hill (the shape of the spectra) is better trained, by the theory; scale, the mean log10 of
    the largest eigenvalue, stands beside it. weak counts layers whose alpha is weak evidence.
    Strata of fewer than five models are listed without a rank.
    """
    from jobs import questions
    from jobs.output import emit

    table = questions.leaderboard(lake, limit, brief=_brief(form, output))
    emit(table, form, output, section=questions.STRATUM)


@cli.command()
@click.argument("repo_id", metavar="REPO")
@_lake_option
@_output_options
@_limit_option(1000)
@click.option("--all", "everything", is_flag=True, help="Skipped tensors too.")
def show(
    repo_id: str, lake: Path, form: str | None, output: Path | None, limit: int, everything: bool
) -> None:
    """Show the layers of one model, worst first."""
    from jobs import questions
    from jobs.output import emit

    brief = _brief(form, output)
    table = questions.layers(lake, repo_id, limit, brief, everything)
    emit(table, form, output, _headline(questions.model(lake, repo_id)) if brief else "")


@cli.command()
@click.argument("target", metavar="REPO")
@click.argument("tensor")
@_lake_option
@click.option(
    "--endpoint", envvar="HF_ENDPOINT", default="https://huggingface.co", show_default=True, help="Hub."
)
@click.option("--part", help="Part of a fused tensor.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw spectrum, tail and search into a PNG, SVG or PDF file.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON to a file."
)
def explain(**options: Any) -> None:
    """Explain one matrix: read it again, fit it in every way, show the evidence.

    REPO is owner/name, owner/name@revision, a model's folder or a .safetensors file; TENSOR a name, or a
    piece of one that no other tensor has. Shows our fit beside that of the powerlaw package, every
    alternative to a power law, the random bulk, and each finding with its numbers. Where the lake holds a
    scan of the model, the same commit is read by the same rules, and what only the scan knows (siblings,
    the base, the rest of the lake) is added.

    \b
    Example: hubspectra explain owner/name layer.4.attention.self.value --plot value.png
    """  # noqa: D301
    from jobs.explaining import explain_tensor

    if options["output"] is not None:
        options["form"] = "json"
    explain_tensor(**options)


@cli.command()
@click.argument("repo_id", metavar="REPO")
@click.option(
    "--kind",
    required=True,
    type=click.Choice(["learning-rate", "weight-decay", "pruning", "experts", "lr", "wd", "prune"]),
    help="What to allocate; lr, wd and prune are short for the first three.",
)
@_lake_option
@click.option(
    "--base",
    type=float,
    help="Global learning rate or decay, share to prune, number of experts.  [default: 0.1, 0.1, 0.7, 160]",
)
@click.option(
    "--scale",
    type=(float, float),
    metavar="LOW HIGH",
    help="Factors of the smallest and the largest alpha.  [default: 0.5 1.5, 0.667 5, 0.8 1.2]",
)
@click.option(
    "--variant", type=click.Choice(["linear", "sqrt", "log2"]), help="Map of a learning rate or decay plan."
)
@click.option(
    "--alpha",
    type=click.Choice(["alpha_hill", "alpha", "alpha_peak_compat"]),
    help="Column to go by.  [default: alpha_hill; for pruning and experts alpha_peak_compat]",
)
@click.option("--beta", type=float, help="Power of alpha in an experts plan.  [default: 2.5]")
@click.option(
    "--clip/--no-clip", default=None, help="Keep sparsities at 1 or below (default), or the original rule."
)
@click.option(
    "--guard/--no-guard", default=True, help="Whether few or nearly equal alphas give a uniform plan."
)
@click.option("--component", help="Sub-model of a repository of several.")
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), help="Default: yaml.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead."
)
def plan(**options: Any) -> None:
    """Turn the layers of one model into factors for each: learning rates, decay, sparsity or experts.

    The rules are those of TempBalance, AlphaDecay, AlphaPruning and AlphaLoRA. For an optimizer's parameter
    groups see scanner.diagnosis.groups.parameter_groups.
    """
    from jobs.planning import plan as run

    run(**options)


@cli.command()
@_lake_option
@_output_options
@_limit_option(1000)
@click.option("--kind", help="One kind of finding, such as scale_outlier or fit_unreliable.")
@click.option("--repo", help="One repository.")
def flags(
    lake: Path, form: str | None, output: Path | None, limit: int, kind: str | None, repo: str | None
) -> None:
    """List findings with value, threshold and a sentence, the weighty ones first.

    The table leaves out fit_unreliable and no_tail, which only say that alpha is weak evidence, and
    well_trained; ask for them with --kind, or take another format.
    """
    from jobs import questions
    from jobs.output import emit

    emit(questions.flags(lake, kind, repo, limit, _brief(form, output)), form, output)


@cli.command()
@click.argument("base", metavar="BASE")
@click.argument("fine_tune", metavar="FINE_TUNE")
@click.option(
    "--lake",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the rows in this lake too.  [default: nothing is kept]",
)
@click.option(
    "--endpoint", envvar="HF_ENDPOINT", default="https://huggingface.co", show_default=True, help="Hub."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--profile", type=click.Choice(["default", "full", "weightwatcher"]), default="default", show_default=True
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML with overrides of any rule or threshold.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@_output_options
@_limit_option(1000)
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
    from jobs.comparing import compare as run

    return run(base, fine_tune, form=form, output=output, brief=_brief(form, output), **options)


@cli.command("correlate")
@click.argument("metric")
@click.argument("score")
@_lake_option
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Scores by repo_id or model; with METRIC in it too, no lake is needed.",
)
@click.option("--by", help="Column that tells comparable models apart.  [default: stratum, or stratum_key]")
@click.option("--lower-is-better", is_flag=True, help="SCORE is an error or a loss; its sign is turned.")
@_output_options
def correlate_scores(form: str | None, output: Path | None, **question: Any) -> None:
    """Hold a METRIC of models against a SCORE, inside strata of comparable models.

    METRIC is a column of the models view. SCORE is an evaluation result of the model cards, as
    task/dataset/metric or a part of that, or a column of --csv. Says so in words when strata disagree or
    the pooled sign is not theirs: then no one order of all models means anything.

    \b
    Example: hubspectra correlate alpha_hat top1_err --lower-is-better --csv trends.csv --by series
    """  # noqa: D301
    from jobs.correlating import answer
    from jobs.output import emit

    brief = _brief(form, output)
    table, verdict = answer(**question, brief=brief)
    emit(table, form, output, f"{question['metric']} against {question['score']}")
    if brief:
        click.echo(verdict)


@cli.command()
@click.argument("query", required=False)
@_lake_option
@_output_options
@click.option("--print-views", is_flag=True, help="Print SQL that opens the lake in any DuckDB client.")
def sql(query: str | None, lake: Path, form: str | None, output: Path | None, print_views: bool) -> None:
    """Ask the lake in SQL (DuckDB).

    \b
    Views: layers, repositories, failures, runs (as stored);
           models, leaderboard, flags, fine_tunes, history, universality, correlation_flow, load_temperature,
           strata, anomalies, configs, weightwatcher (derived).
    Example: hubspectra sql "SELECT role, median(alpha) FROM layers GROUP BY role"
    QUERY may be - for standard input.
    """  # noqa: D301
    from jobs.leaderboard import ask, view_sql
    from jobs.output import emit
    from jobs.store import open_lake

    if print_views:
        open_lake(lake)
        click.echo(view_sql(lake), nl=False)
        return
    if query is None:
        raise click.UsageError("give a QUERY, or --print-views")
    emit(ask(lake, sys.stdin.read() if query == "-" else query), form, output)


@cli.command()
@_lake_option
@_output_options
@click.option("--failures", is_flag=True, help="What failed and is not resolved, instead of the scans.")
def status(lake: Path, form: str | None, output: Path | None, failures: bool) -> None:
    """Show the scans of a lake: what was done, what failed."""
    from jobs import questions
    from jobs.output import emit

    emit(questions.failures(lake) if failures else questions.runs(lake), form, output)


@cli.command()
@_lake_option
@_output_options
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
    from jobs.output import emit
    from jobs.tidying import tidy

    table, said = tidy(lake, grace, dry_run)
    emit(table, form, output)
    click.echo(said, err=True)


@cli.command()
@click.argument("table", type=click.Choice(["layers", "models", "repositories", "failures", "runs"]))
@_output_options
def columns(table: str, form: str | None, output: Path | None) -> None:
    """Explain the columns of a table: type, unit and range, what NULL means."""
    from jobs.output import emit
    from schemas.tables import reference

    emit(reference(table), form, output, f"{table}")


@cli.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="Folder with another base model.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the demo's hub and lake lie.  [default: hubspectra-demo in the user's cache]",
)
@click.option("--fresh", is_flag=True, help="Begin anew.")
def demo(model: Path | None, folder: Path | None, fresh: bool) -> int:
    """Scan a small hub of real models, offline, end to end.

    Serves all-MiniLM-L6-v2 and four variants of it (one untrained, one with a collapsed layer) on
    loopback, scans them through the Hub's own client with a local Ray, and shows what came out.
    """
    from jobs.demo import run_demo

    return run_demo(model, folder, fresh)


@cli.command()
@click.argument("names", nargs=-1, metavar="NAME...|all")
@click.option("--list", "listed", is_flag=True, help="Say which studies there are.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for a report with figures."
)
@click.option("--quick", is_flag=True, help="Fewer draws; all then means those with a quick form.")
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="Default: a table on a terminal, CSV in a pipe."
)
def study(names: tuple[str, ...], listed: bool, out: Path | None, quick: bool, form: str | None) -> int:
    """Run validation experiments and compare what comes out with what is expected.

    Random matrices of known kind, published tables, trained nets, real checkpoints: each study prints its
    checks with expected value, result, tolerance and source. All offline, seeded and repeatable.

    \b
    Examples: hubspectra study --list
              hubspectra study phases noise
              hubspectra study all --out docs/studies    (needs pip install 'hubspectra[studies]')

    \b
    Exit codes: 0 no check fails; 3 a check fails; 1 your input; 2 usage.
    A study that lacks a package or data says what it needs and is not run; that is no failure. A check that
    deviates is off by more than its tolerance for a reason that was looked into and is told.
    """  # noqa: D301
    from jobs.studying import study as run

    return run(names, listed, out, quick, form)


@cli.command("serve-hub")
@click.argument("root", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8800, show_default=True)
@click.option("--token", envvar="HUBSPECTRA_HUB_TOKEN", help="Ask clients for it (private and gated models).")
def serve_hub(root: Path, host: str, port: int, token: str | None) -> None:
    """Serve the models under DIR (laid out owner/name) as a Hub, for air-gapped use.

    Any client that honours HF_ENDPOINT can use it.
    """
    from jobs.hubserver import HubServer

    server = HubServer(root, host=host, port=port, token=token)
    server.start()
    click.echo(
        f"serving {root} at {server.endpoint}\n  HF_ENDPOINT={server.endpoint} hubspectra scan owner/name"
    )
    server.serve_forever()


@cli.command()
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
@_output_options
def bench(cases: tuple[str, ...], listed: bool, form: str | None, output: Path | None, **options: Any) -> int:
    """Measure hubspectra side by side with its peers, and against its own targets.

    Every comparison first checks that both sides give the same numbers, then times them in turn on one
    thread. Without CASE all run, which takes about ten minutes of a quiet machine.

    The peers are an extra: pip install 'hubspectra[peers]'. Without them their cases say so.

    \b
    Example: hubspectra bench tail-fit minilm --pairs 7
             hubspectra bench --json docs/benchmarks.json --page docs/benchmarks.md
    """  # noqa: D301
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    from jobs.bench.run import bench as run
    from jobs.bench.run import catalogue
    from jobs.output import emit

    if listed:
        emit(catalogue(), form, output)
        return Exit.OK
    return run(cases, form=form, output=output, brief=_brief(form, output), **options)


def main() -> None:
    """Run the command line; errors become a sentence and an exit code."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    _one_thread()
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
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click and rich turn a closed pipe into SystemExit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


def _one_thread() -> None:
    """One BLAS thread a worker: more only wait for each other. Must come before numpy is imported."""
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    prefer_wide_kernels(os.environ)


def _brief(form: str | None, output: Path | None) -> bool:
    return output is None and (form == "table" or (form is None and sys.stdout.isatty()))


def _headline(model: dict[str, Any]) -> str:
    alpha = f"{model['alpha_mean']:.2f}" if model["alpha_mean"] is not None else "none"
    return (
        f"{model['repo_id']}@{model['revision'][:12]}  {model['status']}  mean alpha {alpha} over "
        f"{model['num_counted']} layers ({model['num_fit_unreliable']} weak fits)  flags: "
        f"{', '.join(model['flags']) or 'none'}"
    )
