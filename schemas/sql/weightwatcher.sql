-- The rows WeightWatcher 0.7.7 would print, under its column names and in its units
-- (eigenvalues of a pooled convolution are halved; a failed fit is -1 and "over-trained", as there).
SELECT
    repo_id, revision, component,
    matrix_index AS layer_id,
    tensor AS longname,
    coalesce(ww_alpha, -1) AS alpha,
    CASE WHEN ww_status = 'success'
        THEN ww_alpha * (log_spectral_norm - halved) ELSE -(log_spectral_norm - halved) END AS alpha_weighted,
    coalesce(ww_D, -1) AS D,
    ww_entropy AS entropy,
    lambda_max / scale AS lambda_max,
    log_norm - halved AS log_norm,
    log_spectral_norm - halved AS log_spectral_norm,
    ww_matrix_rank AS matrix_rank,
    norm / scale AS norm,
    N, M, Q, kernel_size AS rf, num_evals,
    coalesce(ww_num_pl_spikes, -1) AS num_pl_spikes,
    ww_rank_loss AS rank_loss,
    coalesce(ww_sigma, -1) AS sigma,
    lambda_max / scale AS spectral_norm,
    stable_rank, ww_status AS status,
    ww_sv_min AS sv_min,
    sqrt(lambda_max / scale) AS sv_max,
    ww_weak_rank_loss AS weak_rank_loss,
    CASE WHEN coalesce(ww_alpha, -1) < 2 THEN 'over-trained' WHEN ww_alpha > 6 THEN 'under-trained' ELSE '' END
        AS warning,
    ww_xmax AS xmax,
    coalesce(ww_xmin, -1) AS xmin,
    config_fingerprint, scan_id
FROM (
    SELECT *,
        CASE WHEN len(shape) = 4 THEN 2.0 ELSE 1.0 END AS scale,
        CASE WHEN len(shape) = 4 THEN log10(2) ELSE 0 END AS halved
    FROM layers
    WHERE ww_status IS NOT NULL
)
