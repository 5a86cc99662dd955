"""One matrix taken apart: its entries, its eigenvalues, its tail. What rows and comparisons are made from."""

from collections.abc import Callable

from scanner.spectra import eigen
from scanner.spectra.device import Solved
from scanner.spectra.fourier import fourier_spectrum
from scanner.spectra.moments import Moments, MomentsAccumulator
from scanner.spectra.tailfit import fit_tail
from schemas.config import ScanConfig
from schemas.errors import NumericsError
from schemas.records import record
from schemas.results import FailureKind, FloatArray, Spectrum, TailFit


@record(kw_only=False)
class Anatomy:
    """A matrix taken apart: its entries, its spectrum, its tail, and the Gram matrix where it was kept."""

    moments: Moments
    spectrum: Spectrum
    tail: TailFit
    gram: FloatArray | None = None


def anatomy(
    weights: eigen.Weights,
    config: ScanConfig,
    method: str | None = None,
    *,
    with_gram: bool = False,
    solved: Solved | None = None,
) -> Anatomy:
    """Spectrum and tail fit of a matrix, by SVD where the Gram matrix is not accurate enough for the tail."""
    grams: list[FloatArray] = []
    if solved is not None and method is None:
        moments, spectrum = solved.moments, solved.spectrum
    else:
        moments, spectrum = taken_apart(weights, config, method, grams.append if with_gram else None)
    tail = fit_tail(spectrum, rules=config.tail)
    if _beyond_gram(spectrum, tail, config):
        moments, spectrum = taken_apart(weights, config, "svd")
        tail = fit_tail(spectrum, rules=config.tail)
    return Anatomy(moments, spectrum, tail, grams[-1] if grams else None)


def spectrum_of(
    weights: eigen.Weights,
    config: ScanConfig,
    *,
    method: str | None = None,
    observe: Callable[[FloatArray], None] = lambda _: None,
    keep: Callable[[FloatArray], None] | None = None,
) -> Spectrum:
    """The eigenvalues of one row as `config` wants them; see `spectra.eigen.solve`."""
    rules = config.spectrum
    if config.matrices.transforms(weights.shape):
        return fourier_spectrum(weights, method=method or rules.method, observe=observe)
    return eigen.solve(weights, method=method or rules.method, block=rules.block, observe=observe, keep=keep)


def taken_apart(
    weights: eigen.Weights,
    config: ScanConfig,
    method: str | None = None,
    keep: Callable[[FloatArray], None] | None = None,
) -> tuple[Moments, Spectrum]:
    """Entries and eigenvalues. Raises NumericsError."""
    entries = MomentsAccumulator()
    try:
        spectrum = spectrum_of(weights, config, method=method, observe=entries.add, keep=keep)
    except NumericsError as error:
        raise _explained(error, entries.result()) from error
    moments = entries.result()
    if moments.abs_max and spectrum.evals[-1] == 0:
        raise NumericsError(
            FailureKind.EIGENSOLVER_ERROR, "squares of the weights underflow float64: rescale the weights"
        )
    return moments, spectrum


def _explained(error: NumericsError, moments: Moments) -> NumericsError:
    """Blame the input for NaN in it, and the range of float64 for squares that overflow."""
    if error.kind is not FailureKind.NONFINITE:
        return error
    if not moments.num_nonfinite:
        return NumericsError(
            FailureKind.EIGENSOLVER_ERROR, "squares of the weights overflow float64: rescale the weights"
        )
    failure = NumericsError(error.kind, f"{moments.num_nonfinite} of {moments.count} entries are NaN or Inf")
    failure.num_nonfinite = moments.num_nonfinite
    return failure


def _beyond_gram(spectrum: Spectrum, tail: TailFit, config: ScanConfig) -> bool:
    if spectrum.method == "svd_f64" or tail.xmin is None:
        return False
    return bool(spectrum.evals[-1] / tail.xmin > config.spectrum.svd_above)
