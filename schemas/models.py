"""The row of the `models` view: what SQL derives from layers and repository rows."""

from datetime import datetime

from schemas.columns import column
from schemas.records import record

_NO_ROWS = "no contributing row"
_NO_DEPTH = "fewer than 4 blocks"


@record()
class ModelMetrics:
    """One scanned model: what schemas/sql/models.sql derives from its layers and its repository row.

    Means run over `counted` rows unless the name says otherwise: `_all` adds embeddings and heads, `_star`
    leaves out the last layer, `_reliable` leaves out unreliable fits, `_numel` weights by parameters.
    """

    scan_id: str = column("string", "the scan that wrote it")
    repo_id: str = column("string", "owner/name")
    revision: str = column("string", "40 hex digits")
    config_fingerprint: str = column("string", "16 hex digits of the config")
    code_version: str = column("string", "hubspectra version")
    estimator: str = column("string", "version of the tail fit")
    component: str | None = column("string", "sub-model folder", "single-model repository")
    architecture: str | None = column("string", "from config.json", "absent there")
    library_name: str | None = column("string", "from the card", "absent there")
    pipeline_tag: str | None = column("string", "from the card", "absent there")
    license: str | None = column("string", "from the card", "absent there")
    base_model: str | None = column("string", "from the card", "absent there")
    dtype_main: str | None = column("string", "storage type of most parameters", "no parameters")
    quant_method: str | None = column("string", "from config.json", "not quantised")
    downloads: int | None = column("int64", ">= 0", "unknown")
    likes: int | None = column("int64", ">= 0", "unknown")
    params: int | None = column("int64", ">= 0, from the headers", "no header readable")
    tokens: int | None = column("int64", "training tokens", "absent from the card")
    last_modified: datetime | None = column("timestamp[us, tz=UTC]", "UTC", "unknown")
    scanned_at: datetime = column("timestamp[us, tz=UTC]", "UTC")
    status: str = column("string", "ok, partial (some failed), failed, skipped")
    num_matrices: int = column("int32", "planned = num_ok + num_skipped + num_failed")
    num_ok: int = column("int32", ">= 0")
    num_skipped: int = column("int32", ">= 0")
    num_failed: int = column("int32", ">= 0")
    num_counted: int = column("int32", ">= 0")
    num_fit_ok: int = column("int32", ">= 0")
    num_fit_unreliable: int = column("int32", ">= 0")
    coverage_params: float | None = column(
        "float64", "[0,1] parameters in ok rows / params", "params unknown"
    )
    bytes_read: int = column("int64", "bytes")
    secs: float = column("float32", "s of compute")
    alpha_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_mean_all: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_mean_star: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_mean_reliable: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_mean_numel: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_median: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_std: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_p10: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_p90: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_hill_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_hill_median: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_trunc_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_weighted_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_weighted_mean_all: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_weighted_mean_star: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_weighted_sum: float | None = column("float64", "as the layer column", _NO_ROWS)
    alpha_weighted_n_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    legacy_bform_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    legacy_bsqrt_sum: float | None = column("float64", "as the layer column", _NO_ROWS)
    log_norm_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    log_norm_sum: float | None = column("float64", "as the layer column", _NO_ROWS)
    log_spectral_norm_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    log_spectral_norm_sum: float | None = column("float64", "as the layer column", _NO_ROWS)
    log_alpha_norm_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    log_soft_rank_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    stable_rank_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    mp_softrank_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    mp_softrank_median: float | None = column("float64", "as the layer column", _NO_ROWS)
    D_ks_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    rand_distance_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    entropy_mean: float | None = column("float64", "as the layer column", _NO_ROWS)
    frac_2_4: float | None = column("float64", "[0,1] share of counted rows", _NO_ROWS)
    frac_15_5: float | None = column("float64", "[0,1] share of counted rows", _NO_ROWS)
    frac_lt_2: float | None = column("float64", "[0,1] share of counted rows", _NO_ROWS)
    frac_gt_6: float | None = column("float64", "[0,1] share of counted rows", _NO_ROWS)
    depth_slope: float | None = column("float64", "alpha from first to last block", _NO_DEPTH)
    depth_rho: float | None = column("float64", "[-1,1] Spearman", _NO_DEPTH)
    depth_roughness: float | None = column("float64", "mean step of alpha, >= 0", _NO_DEPTH)
    phase_shares: dict[str, float] | None = column("map<string, float64>", "sums to 1", "no phase")
    num_traps: int | None = column("int32", ">= 0", "null models off")
    num_scale_outlier: int = column("int32", ">= 0")
    num_rank_collapse: int = column("int32", ">= 0")
    base_pairs: int | None = column("int32", ">= 0", "no base")
    base_unmatched: int | None = column("int32", ">= 0", "no base")
    rel_delta_median: float | None = column("float64", ">= 0", "no base pair")
    d_alpha_mean: float | None = column("float64", "alpha minus the base's", "no base pair")
    d_log_spectral_norm_mean: float | None = column("float64", "log10", "no base pair")
    stratum_key: str | None = column("string", "what may be ranked together", "status failed")
    stratum_rank: int | None = column("int32", ">= 1", "stratum_n < 5, or not the latest scan of the model")
    stratum_n: int | None = column("int32", ">= 1", "not the latest scan of the model")
    flags: tuple[str, ...] = column("list<string>", "findings about the model and its layers")
