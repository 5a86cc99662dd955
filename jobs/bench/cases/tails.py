"""Fits of a tail: the search for xmin, the rivals of the power law, the bootstrap."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jobs.bench import peers
from jobs.bench.options import Options
from jobs.bench.pairs import compare, cpu_seconds, figure
from jobs.bench.result import Agreement, NotRunError, Result, farthest
from scanner.spectra.alternatives import fit_alternatives, fit_truncated
from scanner.spectra.bootstrap import bootstrap_p
from scanner.spectra.tailfit import fit_tail
from schemas.config import ESTIMATOR, TailRules
from schemas.results import FitStatus, FloatArray, TailFit

_FITS_SAMPLED = 5
_RIVALS = ("exponential", "stretched_exponential", "lognormal", "truncated_power_law")


def tail_fit(options: Options) -> Iterator[Result]:
    """The exact search for xmin against WeightWatcher's."""
    peers.require_weightwatcher()
    sizes = {384: None, 1024: 100.0, 4096: 100.0, 16384: 1000.0}
    for n, target in list(sizes.items())[: 2 if options.quick else 4]:
        yield _one_fit("WeightWatcher, WWFit", peers.weightwatcher_fit, n, 1e-9, target, options.pairs)


def powerlaw_package(options: Options) -> Iterator[Result]:
    """The same fit by the powerlaw package, its range of alpha opened."""
    for n in (384,) if options.quick else (384, 1024):
        yield _one_fit("powerlaw.Fit", peers.powerlaw_fit, n, 1e-5, 1000.0, options.pairs)


def _one_fit(
    peer: str,
    fit: Callable[[FloatArray], peers.Fit],
    n: int,
    limit: float,
    target: float | None,
    pairs: int,
) -> Result:
    evals = heavy_spectrum(n)
    return compare(
        f"tail fit, n = {n}",
        peer,
        lambda: fit_tail(evals, "weightwatcher"),
        lambda: fit(evals),
        judge=lambda ours, theirs: _same_fit(ours, theirs, limit),
        target=target,
        pairs=pairs,
    )


def alternatives(options: Options) -> Iterator[Result]:
    """Rivals of the power law on its own tail; our likelihood may not be below the peer's."""
    evals = pareto(1001)
    xmin, logs = float(evals[0]), np.log(evals / evals[0])
    tail = TailFit(estimator=ESTIMATOR, status=FitStatus.OK, xmin=xmin, n_tail=evals.size)
    yield compare(
        "truncated power law, tail of 1001",
        "powerlaw.Fit.truncated_power_law",
        lambda: fit_truncated(evals, xmin),
        lambda: peers.powerlaw_rivals(evals, xmin, _RIVALS[3:]),
        judge=lambda ours, theirs: no_worse([ours and ours.llr], list(theirs.values()), logs),
        target=500.0,
        pairs=options.pairs,
    )
    yield compare(
        "all rivals with their tests, tail of 1001",
        "the four fits of powerlaw.Fit",
        lambda: fit_alternatives(evals, tail),
        lambda: peers.powerlaw_rivals(evals, xmin, _RIVALS),
        judge=lambda ours, theirs: no_worse(
            [ours.llr_exp, ours.llr_sexp, ours.llr_logn, ours.llr_tpl], list(theirs.values()), logs
        ),
        pairs=options.pairs,
        note="ours also tests each rival and fits the extended truncated power law",
    )


def bootstrap(options: Options) -> Iterator[Result]:
    """2,500 replicates of a fit, each with the whole search for xmin."""
    count, evals = 250 if options.quick else 2500, heavy_spectrum(1024)
    tail = fit_tail(evals)

    def replicate() -> None:
        bootstrap_p(evals, tail, TailRules(), reps=count, seed=0)

    replicate()
    seconds = [cpu_seconds(replicate) for _ in range(options.pairs)]
    name = f"bootstrap, {count:,} replicates, n = 1024"
    yield figure(name, seconds, "CPU s", 2.0 * count / 2500, **_loop_of_peer(evals, count, min(seconds)))


def _loop_of_peer(evals: FloatArray, count: int, ours: float) -> dict[str, Any]:
    """What a loop over WWFit would take, extrapolated from a few of its fits; no peer, no loop."""
    try:
        peers.require_weightwatcher()
    except NotRunError as reason:
        return {"note": f"no loop to compare with: {reason}"}
    one = statistics.median(cpu_seconds(lambda: peers.weightwatcher_fit(evals)) for _ in range(_FITS_SAMPLED))
    note = f"theirs is extrapolated from {_FITS_SAMPLED} fits, {one * count / ours:.0f} x ours"
    return {"peer": "a loop over WWFit", "ours": ours, "theirs": one * count, "note": note}


def _same_fit(ours: TailFit, theirs: peers.Fit, limit: float) -> Agreement:
    return Agreement(
        what="alpha, xmin, D",
        worst=farthest((ours.alpha, ours.xmin, ours.D_ks), theirs),
        limit=limit,
    )


def no_worse(ours: Sequence[float | None], theirs: Sequence[float], logs: FloatArray) -> Agreement:
    """How far the worst of our rivals' log-likelihoods lies below the peer's.

    Ours come as R, the power law's minus the rival's; theirs as log-likelihoods in x, with xmin = 1.
    """
    b = 1.0 / float(logs.mean())
    power_law = logs.size * math.log(b) - (b + 1.0) * float(logs.sum())
    pairs = zip(ours, theirs, strict=True)
    below = (math.inf if r is None else their - (power_law - r) for r, their in pairs)
    return Agreement(what="our log-likelihood below theirs", worst=max(0.0, *below), limit=1e-5)


def heavy_spectrum(n: int) -> FloatArray:
    """(n,) eigenvalues like a trained layer's: a bulk, and a quarter in a Pareto tail of exponent 3."""
    rng = np.random.default_rng(n)
    body = rng.uniform(0.1, 1.0, n - n // 4)
    tail = (1.0 - rng.random(n // 4)) ** (-1 / 2)
    return np.sort(np.concatenate([body, tail]))


def pareto(n: int) -> FloatArray:
    """(n,) draws of a truncated power law from 1: exponent 2.5, an exponential cut far out."""
    rng = np.random.default_rng(n)
    draws = (1.0 - rng.random(4 * n)) ** (-1 / 1.5)
    kept = draws[rng.random(4 * n) < np.exp(-0.02 * draws)][:n]
    return np.sort(kept / kept.min())
