"""Every number a scan depends on, with its default, once. Same config + same bytes = same rows."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from schemas.errors import ConfigError

ProfileName = Literal["default", "full", "weightwatcher"]
PROFILES: tuple[ProfileName, ...] = ("default", "full", "weightwatcher")

FixFingers = Literal["off", "clip_xmax", "xmin_peak"]
ConvMode = Literal["pool", "slice", "flatten", "fft"]

Count = Annotated[int, Ge(1)]
"""A number that a TOML file may not set below one."""

_MOST_FOURIER_AXES = 4
_STRICT: Any = {"extra": "forbid", "strict": False, "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRules:
    """Which tensors become rows.

    min_side: short side below which a matrix has no spectral row. min_evals: least number of
    eigenvalues of a row. max_evals_exact: largest short side solved exactly. conv_mode: pool (all
    kernel slices in one row), slice (a row each), flatten (out x in*k), fft (the convolution as a linear map
    on a periodic 32 x 32 grid; about 100 times the work of the slices of a 3 x 3 kernel; 3-D
    kernels are pooled). depthwise: analyse them too. as_stored: a row for every tensor as it is in the file:
    fused tensors whole, LoRA factors apart, tied copies too.
    """

    min_side: Count = 8
    min_evals: Count = 8
    max_evals_exact: Count = 16384
    conv_mode: ConvMode = "pool"
    depthwise: bool = False
    as_stored: bool = False

    def transforms(self, shape: tuple[int, ...]) -> bool:
        """Whether weights of `shape` are seen as the linear map they are, not as slices of a kernel."""
        return self.conv_mode == "fft" and 2 < len(shape) <= _MOST_FOURIER_AXES


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumRules:
    """How eigenvalues are computed.

    method: gram (float64 Gram matrix; SVD only where its accuracy demands it) or svd (always).
    svd_above: lambda_max/xmin beyond which a Gram spectrum is recomputed by SVD.
    block: rows (or columns) converted to float64 at a time. precision: of Gram matrices on a GPU; auto is
    float64 where the card is fast at it, else float32 with a certificate, float64 where that is refused.
    """

    method: Literal["gram", "svd"] = "gram"
    svd_above: Annotated[float, Gt(1)] = 1e8
    block: Count = 512
    precision: Literal["auto", "float64", "float32"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class TailRules:
    """The power-law fit: least tail, least eigenvalues, the cut relative to lambda_max, the tail's end.

    xmax: none (the tail never ends) or max (it ends at the largest eigenvalue; estimator hs1-xmax): better
    where the tail spans little, as alpha_trunc is, but biased low; alpha may then be any real number.
    """

    min_tail: Count = 10
    min_evals: Count = 20
    relative_cut: Annotated[float, Gt(0), Lt(1)] = 1e-12
    xmax: Literal["none", "max"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRules:
    """The Marchenko-Pastur fit: least eigenvalues, least slice side of a pooled convolution."""

    min_evals: Count = 50
    min_conv_side: Count = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What is computed beyond spectrum, tail and bulk; a stage that is off leaves its columns NULL.

    erg: the trace-log condition (free). alternatives: rivals of the power law (about 1 ms a row).
    estimators: alpha from the histogram's peak, without outliers, and of square windows. null_model: one
    permutation of the entries (a second spectrum). bootstrap: replicates of the tail for p_boot and
    alpha_boot_stderr, 0 is off. quantiles: the spectrum as 129 numbers (free). vectors: entropies of the
    singular vectors (two to four times a spectrum; off in every profile). seed: decides
    every random draw, with the row's place. base: card compares a fine-tune with the base its card names (a
    read and about two spectra more a row), off does not. cka: similarity to the base by centred Gram
    matrices. compared_with: the base that `compare` was given, which stands over the card's.
    """

    erg: bool = True
    alternatives: bool = False
    estimators: bool = False
    null_model: bool = False
    bootstrap: Annotated[int, Ge(0)] = 0
    quantiles: bool = False
    vectors: bool = False
    seed: Annotated[int, Ge(0)] = 0
    base: Literal["off", "card"] = "card"
    cka: bool = False
    compared_with: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightWatcherRules:
    """Options of WeightWatcher 0.7.7 that profile weightwatcher repeats in the ww_ columns.

    fix_fingers: off, clip_xmax (refit without the largest eigenvalues) or xmin_peak (xmin near the peak of
    the histogram). pool=False is conv_mode slice; detX is always there; randomize is the null_model stage.
    """

    fix_fingers: FixFingers = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What counts as a finding. `ks_max` .. `alpha_excess` make a fit unreliable.

    anomalous_*: robust deviations from the median alpha of at least so many layers of like role and stratum,
    out of at least so many models (copies of one model say little of one another).
    irregular_*: share of at least so many models of a stratum that a model's depth_roughness exceeds. The SQL
    views apply these four, to the configs that scanned into the lake.
    A layer is well trained from `over_trained_alpha` to `well_trained_alpha`, both included.
    From `scale_change` on a fine-tune is held against its base.
    """

    ks_max: float = 0.1
    n_tail_min: int = 20
    n_tail_share: float = 0.03
    tail_decades_min: float = 0.3
    alpha_excess: float = 1.0
    under_trained_alpha: float = 6.0
    over_trained_alpha: float = 2.0
    well_trained_alpha: float = 4.0
    scale_peers_min: int = 6
    scale_dev_sure: float = 2.0
    scale_dev: float = 1.0
    scale_dev_mads: float = 5.0
    rank0_share: float = 0.05
    untrained_softrank: float = 0.75
    untrained_share: float = 1 / 3
    untrained_rows: int = 4
    anomalous_mads: float = 5.0
    anomalous_peers_min: int = 20
    anomalous_models_min: int = 5
    irregular_quantile: float = 0.95
    irregular_peers_min: int = 20
    scale_change: float = 0.5
    scale_change_z: float = 5.0
    scale_change_share: float = 0.5
    ft_rel_delta: float = 0.5
    ft_overlap: float = 0.8
    ft_scale: float = 0.3
    ft_d_alpha: float = -0.5
    ft_alpha: float = 2.0
    ft_noop: float = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """All that decides the numbers and the findings of a scan; `fingerprint()` names it in every row."""

    __pydantic_config__ = _STRICT

    profile: ProfileName = "default"
    matrices: MatrixRules = field(default_factory=MatrixRules)
    spectrum: SpectrumRules = field(default_factory=SpectrumRules)
    tail: TailRules = field(default_factory=TailRules)
    bulk: BulkRules = field(default_factory=BulkRules)
    stages: Stages = field(default_factory=Stages)
    weightwatcher: WeightWatcherRules = field(default_factory=WeightWatcherRules)
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __hash__(self) -> int:
        """Of one field, as every row asks for it; a scan knows one config or a few."""
        return hash(self.profile)

    def to_json(self) -> str:
        """Canonical JSON: equal configs give equal text, as 6 and 6.0 do in a field of floats."""
        return json.dumps(
            _as_declared(asdict(self), asdict(ScanConfig())), sort_keys=True, separators=(",", ":")
        )

    def fingerprint(self) -> str:
        """16 hex digits that name this config and the estimator version."""
        return _fingerprint(self)


ESTIMATOR = "hs1"
"""Version of the default estimator; a change of any default algorithm gets a new name."""
TRUNCATED_ESTIMATOR = f"{ESTIMATOR}-xmax"
"""The same with the tail cut at the largest eigenvalue."""


def estimator_of(rules: TailRules) -> str:
    """Name of the estimator that `rules` choose."""
    return ESTIMATOR if rules.xmax == "none" else TRUNCATED_ESTIMATOR


@cache
def code_version() -> str:
    """Version of the installed hubspectra."""
    return version("hubspectra")


@cache
def _fingerprint(config: ScanConfig) -> str:
    text = f"{ESTIMATOR}:{config.to_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLimits:
    """How work is cut and retried; changes no number, so it is no part of the fingerprint.

    unit_bytes, unit_cost: bounds of one work unit (bytes read; estimated seconds of one core). attempts:
    tries before a unit is given up. backoff: seconds before the second try, doubled after each.
    """

    unit_bytes: int = 1 << 30
    unit_cost: float = 60.0
    attempts: int = 3
    backoff: float = 1.0


def profile_config(profile: str) -> ScanConfig:
    """Return the config of a named profile. Raises ConfigError for an unknown name."""
    if profile == "default":
        return ScanConfig()
    if profile == "full":
        everything = Stages(
            alternatives=True, estimators=True, null_model=True, bootstrap=200, quantiles=True, cka=True
        )
        return ScanConfig(profile="full", stages=everything)
    if profile == "weightwatcher":
        return ScanConfig(
            profile="weightwatcher",
            matrices=MatrixRules(min_side=1, depthwise=True, as_stored=True),
        )
    raise ConfigError(f"unknown profile {profile!r}; choose one of {', '.join(PROFILES)}")


def from_toml(path: Path, profile: str = "default") -> ScanConfig:
    """Read overrides of a profile from a TOML file whose tables are the fields of ScanConfig.

    Raises ConfigError naming the file and every wrong key or value.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        overrides = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not TOML: {error}") from error
    base = asdict(profile_config(overrides.get("profile", profile)))
    try:
        return TypeAdapter(ScanConfig).validate_python(_merged(base, overrides))
    except ValidationError as error:
        raise ConfigError(f"config {path}: " + "; ".join(_explain(e) for e in error.errors())) from error


def from_json(text: str) -> ScanConfig:
    """The config that `to_json` wrote, as `runs` keeps it. Raises ConfigError for another version's keys."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(ScanConfig).validate_json(text)
    except ValidationError as error:
        raise ConfigError("stored config: " + "; ".join(_explain(e) for e in error.errors())) from error


def _as_declared(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Numbers in the types of their fields, which the defaults have."""
    return {
        name: _as_declared(value, defaults[name]) if isinstance(value, dict) else _like(value, defaults[name])
        for name, value in values.items()
    }


def _like(value: Any, default: Any) -> Any:
    """`value` as a number of the kind of `default`, where that is the same number."""
    if not isinstance(value, Real) or not isinstance(default, Real):
        return value
    typed: Any = type(default)(value)  # type: ignore[call-arg]
    return typed if typed == value else value


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {k: v for k, v in over.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | over | {k: _merged(base[k], v) for k, v in both.items()}


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']} (got {error['input']!r})"
