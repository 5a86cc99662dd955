"""Verbs that ask: of the lake, of one matrix, of a metric against a score."""

import sys
from pathlib import Path
from typing import Any

import click

from jobs.cli.firstuse import tell_of_first_use
from jobs.cli.options import (
    endpoint_option,
    file_option,
    for_people,
    lake_option,
    limit_option,
    output_options,
)


@click.command()
@lake_option
@output_options
@limit_option(100)
def leaderboard(lake: Path, form: str | None, output: Path | None, limit: int) -> None:
    """Rank models inside strata of comparable ones.

    Lower alpha_hill (the shape of the spectra) is better trained, by the theory; scale, the mean log10 of
    the largest eigenvalue, stands beside it. weak counts layers whose alpha is weak evidence.
    Strata of fewer than five models are listed without a rank.
    """
    from jobs.lake import questions
    from jobs.verbs.output import emit

    table = questions.leaderboard(lake, limit, brief=for_people(form, output))
    emit(table, form, output, section=questions.STRATUM)
    _say_if_none(
        table, form, output, f"no model yet; what failed: hubspectra status --failures --lake {lake}"
    )


@click.command()
@click.argument("repo_id", metavar="REPO")
@lake_option
@output_options
@limit_option(1000)
@click.option("--all", "everything", is_flag=True, help="Skipped tensors too.")
def show(
    repo_id: str, lake: Path, form: str | None, output: Path | None, limit: int, everything: bool
) -> None:
    """Show the layers of one model, worst first."""
    from jobs.lake import questions
    from jobs.verbs.output import emit

    brief = for_people(form, output)
    table = questions.layers(lake, repo_id, limit, brief, everything)
    emit(table, form, output, _headline(questions.model(lake, repo_id)) if brief else "")
    _say_if_none(table, form, output, "no layer was measured; --all lists what was skipped, and why")


@click.command(short_help="Explain one matrix: every fit, and the evidence.")
@click.argument("target", metavar="REPO")
@click.argument("tensor")
@lake_option
@endpoint_option
@click.option("--part", help="Part of a fused tensor.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw spectrum, tail and search into a PNG, SVG or PDF file.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@file_option("Write the JSON to a file.")
def explain(**options: Any) -> None:
    """Explain one matrix: read it again, fit it in every way, show the evidence.

    REPO is owner/name, owner/name@revision, a model's folder or a .safetensors file; TENSOR a name, or a
    piece of one that no other tensor has. Shows our fit beside that of the powerlaw package, every
    alternative to a power law, the random bulk, and each finding with its numbers; of a LoRA pair, named by
    its A factor, the spectrum of the update and what its rank allows. Where the lake holds a
    scan of the model, the same commit is read by the same rules, and what only the scan knows (siblings,
    the base, the rest of the lake) is added.

    \b
    Example: hubspectra explain owner/name layer.4.attention.self.value \\
                 --plot value.png
    """  # noqa: D301
    tell_of_first_use()
    from jobs.verbs.explaining import explain_tensor

    if options["output"] is not None:
        options["form"] = "json"
    explain_tensor(**options)


@click.command(short_help="List findings with value, threshold and a sentence.")
@lake_option
@output_options
@limit_option(1000)
@click.option("--kind", help="One kind of finding, such as scale_outlier or fit_unreliable.")
@click.option("--repo", help="One repository.")
def flags(
    lake: Path, form: str | None, output: Path | None, limit: int, kind: str | None, repo: str | None
) -> None:
    """List findings with value, threshold and a sentence, the weighty ones first.

    The table leaves out fit_unreliable and no_tail, which only say that alpha is weak evidence, and
    well_trained; ask for them with --kind, or take another format.
    """
    from jobs.lake import questions
    from jobs.verbs.output import emit

    table = questions.flags(lake, kind, repo, limit, for_people(form, output))
    emit(table, form, output)
    _say_if_none(table, form, output, "no finding")


@click.command("correlate", short_help="Hold a metric of models against a score.")
@click.argument("metric")
@click.argument("score")
@lake_option
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Scores by repo_id or model; with METRIC in it too, no lake is needed.",
)
@click.option("--by", help="Column that tells comparable models apart.  [default: stratum, or stratum_key]")
@click.option("--lower-is-better", is_flag=True, help="SCORE is an error or a loss; its sign is turned.")
@output_options
def correlate_scores(form: str | None, output: Path | None, **question: Any) -> None:
    """Hold a METRIC of models against a SCORE, inside strata of comparable models.

    METRIC is a column of the models view. SCORE is an evaluation result of the model cards, as
    task/dataset/metric or a part of that, or a column of --csv. Says so in words when strata disagree or
    the pooled sign is not theirs: then no one order of all models means anything.

    \b
    Example: hubspectra correlate alpha_hat top1_err --lower-is-better \\
                 --csv trends.csv --by series
    """  # noqa: D301
    from jobs.verbs.correlating import answer
    from jobs.verbs.output import emit

    brief = for_people(form, output)
    table, verdict = answer(**question, brief=brief)
    emit(table, form, output, f"{question['metric']} against {question['score']}")
    if brief:
        click.echo(verdict)


@click.command(short_help="Turn layers into factors: rates, decay, sparsity, experts.")
@click.argument("repo_id", metavar="REPO")
@click.option(
    "--kind",
    required=True,
    type=click.Choice(["learning-rate", "weight-decay", "pruning", "experts", "lr", "wd", "prune"]),
    help="What to allocate; lr, wd and prune are short for the first three.",
)
@lake_option
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
@file_option()
def plan(**options: Any) -> None:
    """Turn the layers of one model into factors for each: learning rates, decay, sparsity or experts.

    The rules are those of TempBalance, AlphaDecay, AlphaPruning and AlphaLoRA. For an optimizer's parameter
    groups see scanner.diagnosis.groups.parameter_groups.
    """
    from jobs.verbs.planning import plan as run

    run(**options)


@click.command()
@click.argument("query", required=False)
@lake_option
@output_options
@click.option("--print-views", is_flag=True, help="Print SQL that opens the lake in any DuckDB client.")
def sql(query: str | None, lake: Path, form: str | None, output: Path | None, print_views: bool) -> None:
    """Ask the lake in SQL (DuckDB).

    \b
    Views: layers, repositories, failures, runs (as stored);
           models, leaderboard, flags, fine_tunes, history, universality,
           correlation_flow, load_temperature, strata, anomalies, configs,
           weightwatcher, nlp_metrics (derived).
    `hubspectra columns NAME` explains each.
    Example: hubspectra sql "SELECT role, median(alpha) FROM layers GROUP BY role"
    QUERY may be - for standard input.
    """  # noqa: D301
    from jobs.lake.generations import open_lake
    from jobs.lake.leaderboard import ask, view_sql
    from jobs.verbs.output import emit

    if print_views:
        open_lake(lake)
        click.echo(view_sql(lake), nl=False)
        return
    if query is None:
        raise click.UsageError("give a QUERY, or --print-views")
    emit(ask(lake, sys.stdin.read() if query == "-" else query), form, output)


@click.command()
@lake_option
@output_options
@click.option("--failures", is_flag=True, help="What failed and is not resolved, instead of the scans.")
def status(lake: Path, form: str | None, output: Path | None, failures: bool) -> None:
    """Show the scans of a lake: what was done, what failed."""
    from jobs.lake import questions
    from jobs.verbs.output import emit

    table = questions.failures(lake) if failures else questions.runs(lake)
    emit(table, form, output)
    _say_if_none(table, form, output, "nothing failed" if failures else "no scan yet")


@click.command(short_help="Explain the columns of a table or a view.")
@click.argument("name", required=False)
@output_options
def columns(name: str | None, form: str | None, output: Path | None) -> None:
    """Explain the columns of a table or a view: what it answers, and each column's type.

    Of layers, models, repositories, failures and runs also unit and range, and what NULL means.
    Without NAME it lists all that `hubspectra sql` can ask: tables and views, and what each answers. No lake
    is needed.

    \b
    Examples: hubspectra columns
              hubspectra columns layers
              hubspectra columns flags
    """  # noqa: D301
    from jobs.lake.reference import answers, catalogue, described
    from jobs.verbs.output import emit

    if name is None:
        emit(catalogue(), form, output, "hubspectra sql can ask")
        return
    table = described(name)
    if for_people(form, output):
        click.echo(f"{name}: {answers(name)}")
    emit(table, form, output)


def _say_if_none(table: Any, form: str | None, output: Path | None, what: str) -> None:
    """An empty table leaves people to guess."""
    if for_people(form, output) and not table.num_rows:
        click.echo(what, err=True)


def _headline(model: dict[str, Any]) -> str:
    alpha = f"{model['alpha_mean']:.2f}" if model["alpha_mean"] is not None else "none"
    return (
        f"{model['repo_id']}@{model['revision'][:12]}  {model['status']}  mean alpha {alpha} over "
        f"{model['num_counted']} layers ({model['num_fit_unreliable']} weak fits)  flags: "
        f"{', '.join(model['flags']) or 'none'}"
    )
