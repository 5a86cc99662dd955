"""The scan verb: what was typed -> a request, and a finished scan -> a summary."""

from pathlib import Path

import click

from jobs.engine.driver import Request, Summary, run_scan
from jobs.engine.progress import placed, progress, quiet_progress
from jobs.verbs.arguments import chosen_config
from jobs.verbs.exitcodes import Exit
from jobs.verbs.output import emit
from scanner.sources.targets import parse_targets
from schemas.config import ScanConfig, WorkLimits
from schemas.errors import UsageError

_NAMED = 20
_GPU_LIMITS = WorkLimits(unit_bytes=4 << 30, unit_cost=1200.0)
"""Units that keep a GPU busy: it solves what a core does in 20 minutes within seconds."""


def scan(
    targets: tuple[str, ...],
    lake: Path,
    endpoint: str,
    device: str,
    engine: str,
    workers: int | None,
    ray_address: str | None,
    profile: str,
    config_file: Path | None,
    quiet: bool,
    dry_run: bool,
    compact: bool,
) -> int:
    """Run the scan and tell how it went; returns the exit code."""
    config = chosen_config(profile, config_file)
    if engine == "local" and ((workers or 1) > 1 or ray_address):
        raise UsageError(
            "--engine local is one worker: leave out --workers and --ray-address, or take --engine ray"
        )
    device = choose_device(device, config, ray_address)
    request = Request(
        targets=parse_targets(targets),
        lake=lake,
        config=config,
        limits=limits_of(device),
        device=device,
        engine=engine,
        workers=workers,
        ray_address=ray_address,
        endpoint=endpoint.rstrip("/"),
        compact=compact,
    )
    if dry_run:
        return tell(request)
    with (quiet_progress if quiet else progress)() as display:
        summary = run_scan(request, display)
    report(summary, lake)
    return exit_code(summary)


def tell(request: Request) -> Exit:
    """Print what the scan would cost; nothing is scanned and no lake is touched."""
    from jobs.verbs.forecast import as_table, forecast

    forecasts = forecast(request)
    emit(as_table(forecasts), None, None, "the costliest first; seconds of one core of this machine")
    workers = request.workers or 1
    seconds = sum(f.core_seconds for f in forecasts)
    click.echo(
        f"{len(forecasts)} targets, {sum(f.matrices for f in forecasts)} matrices, "
        f"{sum(f.mbytes for f in forecasts):.1f} MB to read, about {seconds:.0f} s of one core, "
        f"{seconds / workers:.0f} s on {workers} worker{'s' * (workers > 1)}, "
        f"up to {max((f.peak_mbytes for f in forecasts), default=0):.0f} MB a worker",
        err=True,
    )
    return Exit.SOME_FAILED if any(f.problem for f in forecasts) else Exit.OK


def limits_of(device: str) -> WorkLimits:
    """How work is cut for a device."""
    return _GPU_LIMITS if device == "cuda" else WorkLimits()


def choose_device(wanted: str, config: ScanConfig, ray_address: str | None = None) -> str:
    """Resolve auto, asking torch only where a GPU exists; with cuda the GPUs may be a cluster's.

    Raises UsageError for cuda without a GPU, or for singular values, which no device computes here.
    """
    present = any(Path("/dev").glob("nvidia[0-9]*"))
    svd = config.spectrum.method == "svd"
    if wanted == "cuda" and svd:
        raise UsageError(
            "--device cuda: singular values (spectrum.method svd) are computed on the CPU; "
            "leave out --device, or set the method to gram in --config"
        )
    if wanted == "cpu" or (wanted == "auto" and (svd or not present)):
        return "cpu"
    if wanted == "cuda" and ray_address:
        return "cuda"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise UsageError("--device cuda: torch sees no CUDA device here; take --device cpu or auto")
    return "cpu"


def exit_code(summary: Summary) -> int:
    """0 all read, 3 something failed, 130 stopped by a signal."""
    if summary.stopped:
        return Exit.INTERRUPTED
    return Exit.SOME_FAILED if summary.failures else Exit.OK


def report(summary: Summary, lake: Path) -> None:
    """The end of a scan, to standard error: counts that add up, the failures by name, what to do next."""
    run, counts = summary.run, summary.counts
    total = counts.ok + counts.skipped + counts.failed
    lines = [
        f"{run.status}: {counts.repos_done} of {counts.repos} repositories "
        f"({counts.repos_done_before} already in the lake, {counts.repos_failed} with failures) "
        f"in {run.wall_secs or 0:.1f} s, engine {summary.engine}",
        f"matrices planned {total} = {counts.ok} layers + {counts.skipped} skipped + {counts.failed} failed; "
        f"{counts.bytes_read / 1e6:.1f} MB read; compute {counts.compute_secs:.1f} s, "
        f"waiting {counts.wait_secs:.1f} s",
    ]
    for failure in summary.failures[:_NAMED]:
        lines.append(f"  failed ({failure.kind}) {placed(failure)}")
    if len(summary.failures) > _NAMED:
        lines.append(
            f"  and {len(summary.failures) - _NAMED} more: hubspectra status --failures --lake {lake}"
        )
    if summary.stopped:
        lines.append("run the same command again to go on")
    click.echo("\n".join(lines), err=True)
