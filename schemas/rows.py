"""The rows of the lake, one dataclass a table; a field's metadata is its column's documentation.

`column(arrow type, unit and range, what NULL means)`. Arrow schemas (tables.py), the column reference
and the tests are all read off these fields, so a column is declared once.
"""

from datetime import datetime

from schemas.columns import column
from schemas.records import record
from schemas.results import BlockStatus, FitStatus, Flag, RowStatus, Stage

_NO_SPECTRUM = "no spectrum, or a zero matrix"
_NO_ENTRIES = "not decoded, nonfinite, or a LoRA pair"
_NO_FIT = "fit_status not ok"
_NO_BULK = "bulk_status not ok"
_NO_NULL = "null_status not ok"
_NO_ALT = "alt_status not ok"
_NO_PEAK = _NO_ALT + ", or fewer than 10 eigenvalues above the histogram's peak"
_NO_BASE = "base_status not ok"
_NO_CHANGE = "base_status not ok, or a zero matrix"
_NO_WW = "profile weightwatcher not run, or WeightWatcher has no such row"
_NO_CLIP = _NO_WW + ", or fix_fingers not clip_xmax"
_ASKED = "not requested"
_NO_SHAPE = _ASKED + ", or a LoRA pair"
_NO_ESTIMATE = _ASKED + ", a LoRA pair, or too few eigenvalues"
_NO_CROSSING = "no crossing, stage erg off, or a LoRA pair"
_NO_HS1 = _NO_FIT + ", or tail.xmax = max"
_NO_BOOT = _ASKED + ", no fit, or tail.xmax = max"


@record()
class LayerMetrics:
    """One planned matrix of one repository: its place, its numbers, or the reason it has none.

    Key: repo_id, revision, config_fingerprint, file, tensor, part, expert_id, slice_id.
    Eigenvalues are squared singular values (no 1/N, no centring); every log is base 10.
    """

    scan_id: str = column("string", "the scan that wrote the row", default="")
    repo_id: str = column("string", "owner/name")
    revision: str = column("string", "40 hex digits; never a branch")
    file: str = column("string", "path in the repository")
    tensor: str = column("string", "name in the file; of a LoRA pair, its A factor")
    file_sha256: str | None = column("string", "64 hex digits", "not stated by the source")
    component: str | None = column("string", "sub-model folder", "single-model repository")
    part: str | None = column(
        "string", "part of a fused tensor: q k v, gate up, i f g o, r z n", "whole tensor"
    )
    expert_id: int | None = column("int32", ">= 0", "not an expert of a stack")
    slice_id: int | None = column("int32", ">= 0", "not conv_mode slice")
    layer_index: int | None = column("int32", "block number, >= 0", "no block number in the name")
    matrix_index: int = column("int32", "0..num_matrices-1 in plan order")
    role: str = column("string", "q k v o qkv gate up down gate_up embed pos_embed lm_head ... other")
    is_last: bool = column("bool", "the matrix that feeds the output")
    counted: bool = column(
        "bool", "enters model means: fit ok, and no embedding, head or LoRA", default=False
    )
    dtype: str = column("string", "storage type in the file")
    quant_method: str | None = column("string", "gptq, awq, fp8 ...", "not quantised")
    shape: tuple[int, ...] = column("list<int64>", "as stored")
    N: int | None = column("int64", "longer side, >= M", "not a matrix")
    M: int | None = column("int64", "shorter side, >= 1", "not a matrix")
    Q: float | None = column("float64", "N / M, >= 1", "not a matrix")
    kernel_size: int | None = column("int32", "slices pooled; 1 for a plain matrix", "not a matrix")
    conv_mode: str | None = column("string", "pool, slice, flatten, fft", "not a convolution")
    w_scale: float = column("float64", "factor applied to the weights; 1", default=1.0)
    num_evals: int | None = column("int32", "eigenvalues, >= 0", "no spectrum")
    spectrum_method: str | None = column("string", "gram_f64, svd_f64, gram_f32, lora_qr", "no spectrum")
    device: str | None = column("string", "cpu, cuda", "no spectrum")
    estimator: str | None = column("string", "version of the tail fit: hs1, hs1-xmax", "no spectrum")
    config_fingerprint: str = column("string", "16 hex digits of the config", default="")
    code_version: str = column("string", "hubspectra version", default="")
    secs: float | None = column("float32", "s of compute", "not run")
    status: RowStatus = column("string", "ok, skipped, failed")
    status_reason: str | None = column(
        "string",
        "SkipReason or FailureKind code",
        "status ok (zero_matrix, ambiguous_orientation may accompany ok)",
    )
    failure_id: str | None = column("string", "key into failures", "status not failed")

    bulk_status: str | None = column("string", "ok, off, too_small, failed, no_bulk", "status not ok")
    fit_status: str | None = column(
        "string", "ok, off, too_few_evals, no_candidate, constant, failed", "status not ok"
    )
    null_status: str | None = column("string", "ok, off, too_small, too_large, failed", "status not ok")
    alt_status: str | None = column("string", "ok, off, too_small, failed", "status not ok")
    base_status: str | None = column(
        "string", "ok, off, no_base, no_match, shape_mismatch, same_file, failed", "status not ok"
    )

    num_nonfinite: int | None = column("int64", "NaN or Inf entries, >= 0", "not decoded")
    zero_frac: float | None = column("float64", "[0,1] exact zeros", _NO_ENTRIES)
    w_mean: float | None = column("float64", "weight units", _NO_ENTRIES)
    w_std: float | None = column("float64", "weight units, population", _NO_ENTRIES)
    w_abs_max: float | None = column("float64", "weight units, >= 0", _NO_ENTRIES)
    w_kurtosis: float | None = column("float64", "excess", "as w_std, or w_std 0")

    norm: float | None = column("float64", "sum of eigenvalues, weight^2, > 0", _NO_SPECTRUM)
    lambda_max: float | None = column("float64", "largest eigenvalue, weight^2, > 0", _NO_SPECTRUM)
    log_norm: float | None = column("float64", "log10 norm", _NO_SPECTRUM)
    log_spectral_norm: float | None = column("float64", "log10 lambda_max", _NO_SPECTRUM)
    log_spectral_norm_n: float | None = column("float64", "log10(lambda_max / N)", _NO_SPECTRUM)
    stable_rank: float | None = column("float64", "norm / lambda_max, [1, num_evals]", _NO_SPECTRUM)
    rank0_frac: float | None = column("float64", "[0,1] share <= 1e-6 lambda_max", _NO_SPECTRUM)
    entropy: float | None = column("float64", "[0,1] spectral entropy / ln num_evals", _NO_SPECTRUM)
    eff_rank: float | None = column("float64", "exp of the entropy, [1, num_evals]", _NO_SPECTRUM)
    hard_rank: int | None = column("int32", "numerical rank, [0, num_evals]", "not svd_f64, nor certified")
    log_soft_rank: float | None = column(
        "float64", "log_norm / log_spectral_norm", "as norm, or |log_spectral_norm| < .05"
    )
    esd_quantiles: tuple[float, ...] | None = column(
        "list<float32>", "129 quantiles of log10 lambda", _NO_SHAPE
    )

    alpha: float | None = column(
        "float64", "tail exponent of the density, > 1; any real number with tail.xmax = max", _NO_FIT
    )
    alpha_stderr: float | None = column(
        "float64", "(alpha - 1) / sqrt(n_tail); with tail.xmax = max by Fisher information", _NO_FIT
    )
    xmin: float | None = column("float64", "start of the tail, weight^2", _NO_FIT)
    xmax: float | None = column("float64", "end of the tail, weight^2", _NO_FIT)
    D_ks: float | None = column("float64", "[0,1] Kolmogorov-Smirnov distance of the tail", _NO_FIT)
    tail_decades: float | None = column("float64", "log10(xmax / xmin), > 0", _NO_FIT)
    n_tail: int | None = column("int32", "eigenvalues >= xmin, >= 10", _NO_FIT)
    near_ties: int | None = column("int32", "candidates rounding could make xmin; 1 = certain", _NO_HS1)
    alpha_trunc: float | None = column(
        "float64", "exponent with the tail cut at xmax", _NO_FIT + ", or no root"
    )
    alpha_hill: float | None = column("float64", "Hill exponent of the upper half, > 1", _NO_FIT)
    alpha_farms: float | None = column("float64", "Hill exponent of square windows, > 1", _NO_ESTIMATE)
    alpha_peak: float | None = column("float64", "exponent from the histogram peak, > 1", _NO_ESTIMATE)
    alpha_peak_compat: float | None = column(
        "float64", "the same, as published code does it, > 1", _NO_ESTIMATE
    )
    alpha_clipped: float | None = column("float64", "exponent after dropping outliers, > 1", _NO_ESTIMATE)
    num_fingers: int | None = column("int32", "outliers dropped, 0..9", _NO_ESTIMATE)
    p_boot: float | None = column("float64", "[0,1] bootstrap p of the power law", _NO_BOOT)
    boot_reps: int | None = column("int32", "replicates, >= 1", _NO_BOOT)
    alpha_boot_stderr: float | None = column(
        "float64", "standard deviation of alpha over the replicates, xmin refitted, >= 0", _NO_BOOT
    )

    llr_exp: float | None = column("float64", "nats; > 0 favours the power law", _NO_ALT)
    llr_sexp: float | None = column("float64", "nats; > 0 favours the power law", _NO_ALT)
    llr_logn: float | None = column("float64", "nats; > 0 favours the power law", _NO_ALT)
    llr_tpl: float | None = column("float64", "nats; > 0 favours the power law", _NO_ALT)
    llr_exp_p: float | None = column("float64", "[0,1]", _NO_ALT)
    llr_sexp_p: float | None = column("float64", "[0,1]", _NO_ALT)
    llr_logn_p: float | None = column("float64", "[0,1]", _NO_ALT)
    llr_tpl_p: float | None = column("float64", "[0,1]", _NO_ALT)
    best_dist: str | None = column("string", "PL, TPL, EXP, SEXP, LOGN", _NO_ALT)
    alt_at_boundary: tuple[str, ...] | None = column("list<string>", "PL, TPL, EXP, SEXP, LOGN", _NO_ALT)
    exp_lambda: float | None = column("float64", "1/weight^2", _NO_ALT)
    tpl_beta: float | None = column("float64", "real", _NO_ALT)
    tpl_lambda: float | None = column("float64", "1/weight^2", _NO_ALT)
    etpl_beta: float | None = column("float64", "real", _NO_PEAK)
    etpl_lambda: float | None = column("float64", "1/weight^2", _NO_PEAK)
    etpl_D_ks: float | None = column("float64", "[0,1]", _NO_PEAK)
    logn_c: float | None = column("float64", ">= 0", _NO_ALT)
    sexp_beta: float | None = column("float64", ">= 0; 0 at the boundary", _NO_ALT)

    alpha_weighted: float | None = column("float64", "alpha * log_spectral_norm", _NO_FIT)
    log_alpha_norm: float | None = column("float64", "log10 of the sum of lambda^alpha", _NO_FIT)

    sigma2_mp: float | None = column("float64", "variance of the Marchenko-Pastur bulk, weight^2", _NO_BULK)
    lambda_plus: float | None = column("float64", "bulk edge, weight^2", _NO_BULK)
    lambda_edge: float | None = column("float64", "Tracy-Widom quantile of the edge, weight^2", _NO_BULK)
    mp_edge_ratio: float | None = column("float64", "lambda_max / lambda_plus, > 0", _NO_BULK)
    mp_D: float | None = column("float64", "[0,1] KS distance of the bulk", _NO_BULK)
    mp_softrank: float | None = column("float64", "min(1, lambda_plus / lambda_max)", _NO_BULK)
    spike_mass: float | None = column("float64", "[0,1] share of norm above lambda_edge", _NO_BULK)
    mp_ok: bool | None = column("bool", "the bulk is Marchenko-Pastur", _NO_BULK)
    num_spikes: int | None = column("int32", "eigenvalues above lambda_edge, >= 0", _NO_BULK)

    rand_seed: int | None = column("uint64", "seed of the permutation", _NO_NULL)
    rand_lambda_max: float | None = column("float64", "weight^2", _NO_NULL)
    rand_softrank: float | None = column("float64", "rand_lambda_max / lambda_max", _NO_NULL)
    rand_distance: float | None = column("float64", "[0, .8326]", _NO_NULL)
    rand_distance_ww: float | None = column("float64", "[0, .8326]", _NO_NULL)
    num_traps: int | None = column("int32", "correlation traps, >= 0", _NO_NULL)
    trap_cause: str | None = column("string", "mean, elements", "no trap")
    erg_num: int | None = column("int32", "1..num_evals", _NO_CROSSING)
    erg_gap: int | None = column("int32", "erg_num - n_tail", _NO_CROSSING + ", or no fit")
    erg_lambda: float | None = column("float64", "weight^2", _NO_CROSSING)
    erg_dlambda: float | None = column("float64", "unitless", _NO_CROSSING + ", or no fit")
    vec_entropy_tail: float | None = column("float64", "nats, [0, ln 100]", _ASKED + ", or no fit")
    vec_entropy_bulk: float | None = column(
        "float64", "nats, [0, ln 100]", _ASKED + ", no fit, or all in the tail"
    )
    phase: str | None = column("string", "phase of training", "status not ok, or bulk_status off")
    scale_dev: float | None = column("float64", "log10 against same-shape siblings", "too few siblings")
    scale_peers: int | None = column("int32", "siblings, itself included", "too few siblings")
    flags: tuple[str, ...] = column("list<string>", "FlagKind codes", default=())
    findings: tuple[Flag, ...] = column(
        "list<struct<kind: string, value: float64, threshold: float64, sentence: string>>",
        "the flags with their evidence",
        default=(),
    )

    ww_status: str | None = column("string", "success, failed", _NO_WW)
    ww_alpha: float | None = column("float64", "> 1", _NO_WW + ", or failed")
    ww_xmin: float | None = column(
        "float64", "weight^2, conv times 1/2, a slice times rf/2", _NO_WW + ", or failed"
    )
    ww_xmax: float | None = column(
        "float64", "weight^2, conv times 1/2, a slice times rf/2", _NO_WW + ", or failed"
    )
    ww_D: float | None = column("float64", "[0,1]", _NO_WW + ", or failed")
    ww_sigma: float | None = column("float64", "> 0", _NO_WW + ", or failed")
    ww_num_pl_spikes: int | None = column("int32", ">= 0", _NO_WW + ", or failed")
    ww_rank_loss: int | None = column("int32", ">= 0", _NO_WW)
    ww_weak_rank_loss: int | None = column("int32", ">= 0", _NO_WW)
    ww_matrix_rank: int | None = column("int32", ">= 0", _NO_WW)
    ww_sv_min: float | None = column(
        "float64", "weight units, conv times sqrt(1/2), a slice times sqrt(rf/2)", _NO_WW
    )
    ww_entropy: float | None = column("float64", "[0,1]", _NO_WW)
    ww_detX_num: int | None = column("int32", "0..num_evals", _NO_WW)
    ww_detX_val: float | None = column("float64", "weight^2, conv times 1/2, a slice times rf/2", _NO_WW)
    ww_num_fingers: int | None = column("int32", "0..8, WeightWatcher's count", _NO_CLIP)
    ww_raw_alpha: float | None = column("float64", "> 1, before clipping", _NO_CLIP + ", or failed")

    base_repo_id: str | None = column("string", "owner/name", "no base")
    base_revision: str | None = column("string", "40 hex digits", "no base")
    base_tensor: str | None = column("string", "name in the base", "no base")
    rel_delta: float | None = column("float64", "norm of the change / norm of the base, >= 0", _NO_CHANGE)
    delta_stable_rank: float | None = column("float64", "of the change, >= 1", _NO_CHANGE)
    delta_alpha_hill: float | None = column(
        "float64", "of the change, > 1", _NO_CHANGE + ", or < 20 eigenvalues"
    )
    d_log_norm: float | None = column("float64", "log10, minus the base's", _NO_CHANGE)
    d_log_spectral_norm: float | None = column("float64", "log10, minus the base's", _NO_CHANGE)
    delta_log_spectral_norm: float | None = column("float64", "log10, of the change", _NO_CHANGE)
    d_alpha: float | None = column("float64", "alpha minus the base's", _NO_BASE + ", or a fit missing")
    d_num_traps: int | None = column("int32", "traps minus the base's", _NO_BASE + ", or null_status not ok")
    scale_change_z: float | None = column("float64", "robust z of d_log_spectral_norm", _NO_CHANGE)
    subspace_overlap10: float | None = column(
        "float64",
        "[0,1] of the 10 leading left singular vectors of the tall W_NM",
        _NO_BASE + ", or rank below 10",
    )
    cka: float | None = column(
        "float64", "[0,1] similarity to the base", _ASKED + ", base_status not ok, or equal rows"
    )
    lora_rank: int | None = column("int32", ">= 1", "not a LoRA pair")
    lora_scale: float | None = column(
        "float64", "factor of B A: alpha/r, or alpha/sqrt(r)", "not a LoRA pair"
    )

    @property
    def fit_ok(self) -> bool:
        """Whether the tail fit gave numbers."""
        return self.fit_status == FitStatus.OK

    @property
    def bulk_ok(self) -> bool:
        """Whether the Marchenko-Pastur fit gave numbers."""
        return self.bulk_status == BlockStatus.OK


@record()
class RepositoryRow:
    """What is known of a scanned repository besides its layers: the plan's promise and the hub's facts.

    Key: repo_id, revision, component, config_fingerprint.
    """

    scan_id: str = column("string", "the scan that wrote the row", default="")
    repo_id: str = column("string", "owner/name")
    revision: str = column("string", "40 hex digits")
    component: str | None = column("string", "sub-model folder", "single-model repository")
    config_fingerprint: str = column("string", "16 hex digits of the config")
    code_version: str = column("string", "hubspectra version")
    source: str = column("string", "hub endpoint, or local")
    architecture: str | None = column("string", "from config.json", "absent there")
    library_name: str | None = column("string", "from the card", "absent there")
    pipeline_tag: str | None = column("string", "from the card", "absent there")
    license: str | None = column("string", "from the card", "absent there")
    base_model: str | None = column("string", "from the card", "absent there")
    dtype_main: str | None = column("string", "storage type of most parameters", "no parameters")
    quant_method: str | None = column("string", "from config.json, or of the tensors", "not quantised")
    downloads: int | None = column("int64", ">= 0", "unknown")
    likes: int | None = column("int64", ">= 0", "unknown")
    params: int | None = column(
        "int64", ">= 0, from the headers: codes count, scales of codes do not", "no header readable"
    )
    tokens: int | None = column("int64", "training tokens, from the card", "absent there")
    scores: dict[str, float] | None = column(
        "map<string, float64>", "task/dataset/metric -> value, as the card reports it", "absent there"
    )
    last_modified: datetime | None = column("timestamp[us, tz=UTC]", "UTC", "unknown")
    scanned_at: datetime = column("timestamp[us, tz=UTC]", "UTC")
    num_planned: int = column("int32", "rows of layers the plan promised, >= 0")
    num_files_failed: int = column("int32", "weight files or indexes that could not be planned, >= 0")
    left_out: tuple[str, ...] = column("list<string>", "weight files not read: path and reason", default=())
    bytes_read: int = column("int64", "bytes of weights read", default=0)
    secs: float = column("float32", "s of compute", default=0.0)
    findings: tuple[Flag, ...] = column(
        "list<struct<kind: string, value: float64, threshold: float64, sentence: string>>",
        "findings about the model as a whole",
        default=(),
    )


@record()
class Failure:
    """Something that could not be read or computed, and why."""

    failure_id: str = column("string", "16 hex digits")
    scan_id: str = column("string", "the scan that met it", default="")
    repo_id: str = column("string", "owner/name, or the target as given")
    revision: str | None = column("string", "40 hex digits", "the repository could not be pinned")
    file: str | None = column("string", "path in the repository", "wider than one file")
    tensor: str | None = column("string", "name in the file", "wider than one tensor")
    stage: str = column("string", "list, resolve, header, plan, read, decode, spectrum, fit, compare, write")
    kind: str = column("string", "FailureKind code")
    message: str = column("string", "<= 512 characters, control characters escaped")
    retryable: bool = column("bool", "trying again may help")
    resolved: bool = column("bool", "a later scan succeeded", default=False)
    attempt: int = column("int32", ">= 1", default=1)
    http_status: int | None = column("int32", "100..599", "not HTTP")
    first_at: datetime = column("timestamp[us, tz=UTC]", "UTC")
    last_at: datetime = column("timestamp[us, tz=UTC]", "UTC")

    @property
    def only_of_base(self) -> bool:
        """A comparison was missed; the model itself was read."""
        return self.stage == Stage.COMPARE


@record()
class RunRow:
    """One scan: what it was asked, with what it ran, and how it ended."""

    scan_id: str = column("string", "time and random digits; sorts by time")
    config_fingerprint: str = column("string", "16 hex digits of the config")
    config_json: str = column("string", "the whole config")
    code_version: str = column("string", "hubspectra version")
    estimator: str = column("string", "version of the tail fit")
    hub_endpoint: str = column("string", "URL")
    schema_version: int = column("int32", ">= 1")
    started_at: datetime = column("timestamp[us, tz=UTC]", "UTC")
    finished_at: datetime | None = column("timestamp[us, tz=UTC]", "UTC", "running or lost")
    status: str = column("string", "running, finished, stopped, lost")
    versions: dict[str, str] = column("map<string, string>", "python, numpy, scipy, torch, ray ...")
    devices: dict[str, int] = column("map<string, int32>", "device -> workers")
    num_repos: int = column("int64", ">= 0", default=0)
    num_repos_done_before: int = column("int64", "already in the lake, >= 0", default=0)
    num_repos_ok: int = column("int64", ">= 0", default=0)
    num_repos_failed: int = column("int64", ">= 0", default=0)
    num_matrices: int = column("int64", "planned = ok + skipped + failed", default=0)
    num_ok: int = column("int64", ">= 0", default=0)
    num_skipped: int = column("int64", ">= 0", default=0)
    num_failed: int = column("int64", ">= 0", default=0)
    bytes_read: int = column("int64", "bytes", default=0)
    bytes_saved_by_dedup: int = column("int64", "bytes", default=0)
    wall_secs: float | None = column("float64", "s", "running")
    compute_secs: float | None = column("float64", "s, over all workers", "running")
    wait_secs: float | None = column("float64", "s, over all workers", "running")
