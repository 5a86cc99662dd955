"""The phases on synthetic families whose phase is known, and the decision list at its thresholds."""

import numpy as np
import pytest

from scanner.spectra.bulk import BulkFit, fit_bulk
from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.metrics import norms
from scanner.spectra.phases import classify
from scanner.spectra.tailfit import fit_tail
from schemas.results import BlockStatus, FitStatus, Phase, Spectrum, TailFit

N, M = 1000, 400
BBP = (N / M) ** -0.25


def noise(seed):
    return np.random.default_rng(seed).standard_normal((N, M))


def spiked(seed, thetas):
    rng = np.random.default_rng(seed + 100)
    array = noise(seed)
    for theta in thetas:
        u, v = rng.standard_normal(N), rng.standard_normal(M)
        array += theta * np.sqrt(N) * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    return array


def decaying(seed, power):
    """Columns whose covariance has eigenvalues i^-power."""
    return noise(seed) * np.arange(1, M + 1) ** (-power / 2)


def student(seed, freedom):
    return np.random.default_rng(seed).standard_t(freedom, (N, M))


def low_rank(seed, rank):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, rank)) @ rng.standard_normal((rank, M))


FAMILIES = {
    "gaussian": (noise, Phase.RANDOM_LIKE),
    "tiny gaussian": (lambda seed: 1e-5 * noise(seed), Phase.RANDOM_LIKE),
    "spike at the threshold": (lambda seed: spiked(seed, [BBP]), Phase.RANDOM_LIKE),
    "t(8)": (lambda seed: student(seed, 8), Phase.RANDOM_LIKE),
    "one small spike": (lambda seed: spiked(seed, [1.3 * BBP]), Phase.BLEEDING_OUT),
    "three small spikes": (lambda seed: spiked(seed, [1.6 * BBP] * 3), Phase.BLEEDING_OUT),
    "eight spikes": (lambda seed: spiked(seed, np.linspace(2, 6, 8)), Phase.BULK_SPIKES),
    "shifted mean": (lambda seed: noise(seed) + 0.3, Phase.BULK_SPIKES),
    "decay .25": (lambda seed: decaying(seed, 0.25), Phase.BULK_DECAY),
    "decay .35": (lambda seed: decaying(seed, 0.35), Phase.BULK_DECAY),
    "decay .5": (lambda seed: decaying(seed, 0.5), Phase.HEAVY_TAILED),
    "decay .75": (lambda seed: decaying(seed, 0.75), Phase.HEAVY_TAILED),
    "decay 1": (lambda seed: decaying(seed, 1.0), Phase.HEAVY_TAILED),
    "t(1.5)": (lambda seed: student(seed, 1.5), Phase.HEAVY_TAILED),
    "rank 200": (lambda seed: low_rank(seed, 200), Phase.RANK_COLLAPSE),
}
ALPHAS = {"decay .5": 3.39, "decay .75": 2.46, "decay 1": 2.06}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name, seed):
    make, expected = FAMILIES[name]
    spectrum = solve(DenseWeights(make(seed)))
    tail = fit_tail(spectrum)
    assert classify(norms(spectrum), fit_bulk(spectrum), tail, spectrum.evals.size, 0.05) is expected
    if name in ALPHAS:
        assert tail.alpha == pytest.approx(ALPHAS[name], abs=0.25)


def decided(*, zeros=0, status="ok", ok=True, spikes=5, ratio=10.0, fit="ok", alpha=3.0, n_tail=50):
    evals = np.concatenate([np.zeros(zeros), np.ones(100 - zeros)])
    scale = norms(Spectrum(evals=evals, N=100, M=100, method="gram_f64"))
    bulk = BulkFit(status=BlockStatus(status), mp_ok=ok, num_spikes=spikes, mp_edge_ratio=ratio)
    tail = TailFit(estimator="hs1", status=FitStatus(fit), alpha=alpha, n_tail=n_tail)
    return classify(scale, bulk, tail, 1000, 0.05)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"zeros": 5}, "RANK-COLLAPSE"),
        ({"zeros": 5, "status": "no_bulk"}, "RANK-COLLAPSE"),
        ({"zeros": 4}, "BULK+SPIKES"),
        ({"status": "no_bulk"}, "UNDECIDED"),
        ({"status": "too_small"}, "UNDECIDED"),
        ({"spikes": 0, "ratio": 9.0}, "RANDOM-LIKE"),
        ({"ratio": 1.49}, "BLEEDING-OUT"),
        ({"ratio": 1.5}, "BULK+SPIKES"),
        ({"spikes": 100}, "BULK+SPIKES"),
        ({"spikes": 101}, "HEAVY-TAILED"),
        ({"ok": False}, "HEAVY-TAILED"),
        ({"ok": False, "alpha": 4.0}, "HEAVY-TAILED"),
        ({"ok": False, "alpha": 4.01}, "BULK-DECAY"),
        ({"ok": False, "n_tail": 49}, "BULK-DECAY"),
        ({"ok": False, "ratio": 5.0}, "HEAVY-TAILED"),
        ({"ok": False, "ratio": 4.99}, "BULK-DECAY"),
        ({"ok": False, "fit": "constant", "alpha": None, "n_tail": None}, "UNDECIDED"),
        ({"fit": "constant", "alpha": None, "n_tail": None}, "BULK+SPIKES"),
    ],
)
def test_the_decision_list_at_its_thresholds(facts, expected):
    assert decided(**facts) == expected
