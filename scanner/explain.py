"""One matrix explained: its row with every stage on, the curves behind it, and a second opinion."""

from dataclasses import dataclass, replace

from scanner.adapter import measure_lora, product_spectrum
from scanner.anatomy import Anatomy
from scanner.diagnosis.flags import layer_findings
from scanner.layer import measure
from scanner.spectra import eigen
from scanner.spectra.curve import DistanceCurve, distance_curve
from scanner.spectra.opinion import SecondOpinion, second_opinion
from scanner.spectra.tailfit import fit_tail
from scanner.weights.lora import LoraWeights
from schemas.config import ScanConfig, Stages, profile_config
from schemas.refs import MatrixRef
from schemas.results import Flag, Spectrum, TailFit
from schemas.rows import LayerMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that can be said of one matrix from its entries.

    `row`: every stage on; `tail` and `weightwatcher`: the two estimators on the same `spectrum`; `opinion`:
    of the powerlaw package, None without a tail; `findings`: with their evidence, without those that need
    the siblings, the base or the rest of a lake.
    """

    row: LayerMetrics
    spectrum: Spectrum
    tail: TailFit
    weightwatcher: TailFit
    opinion: SecondOpinion | None
    curve: DistanceCurve
    findings: tuple[Flag, ...]


def with_every_stage(config: ScanConfig) -> ScanConfig:
    """`config` with all that profile full computes of a row; rules, thresholds and seed are kept."""
    full: Stages = profile_config("full").stages
    return replace(config, profile="full", stages=replace(full, seed=config.stages.seed))


def explain(ref: MatrixRef, weights: eigen.Weights, config: ScanConfig) -> Explanation:
    """Measure one matrix with every stage on, and fit its tail in every way.

    A LoRA pair has what a scan says of it, by its factors: no bulk, no null, and a tail from rank 20 on.
    Raises NumericsError for entries that are not finite. Cost: about three spectra, the bootstrap, and the
    powerlaw package (see spectra.opinion).
    """
    config = with_every_stage(config)
    row, spectrum, tail = _measured(ref, weights, config)
    return Explanation(
        row=row,
        spectrum=spectrum,
        tail=tail,
        weightwatcher=fit_tail(spectrum, "weightwatcher"),
        opinion=second_opinion(spectrum.evals, tail, config.tail),
        curve=distance_curve(spectrum.evals, config.tail),
        findings=layer_findings(row, config.thresholds),
    )


def _measured(
    ref: MatrixRef, weights: eigen.Weights, config: ScanConfig
) -> tuple[LayerMetrics, Spectrum, TailFit]:
    """The row, eigenvalues and tail of a matrix, or of the product of a LoRA pair."""
    if isinstance(weights, LoraWeights):
        spectrum = product_spectrum(weights)
        return measure_lora(ref, weights, config), spectrum, fit_tail(spectrum, rules=config.tail)
    held: list[Anatomy] = []
    row = measure(ref, weights, config, keep=held.append)
    return row, held[0].spectrum, held[0].tail
