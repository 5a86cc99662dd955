-- The rows WeightWatcher 0.7.7 would print, under its column names and in its units (eigenvalues of a pooled
-- convolution are halved, those of a slice multiplied by half the number of slices; a failed fit is -1 and
-- "over-trained", as there). num_fingers and raw_alpha are those of fix_fingers = 'clip_xmax'. What WeightWatcher
-- draws unseeded or fits by brute force has our own rules under its names: num_spikes .. bulk_max (mp_fit),
-- max_rand_eval .. num_traps (randomize, stage null_model) and the vec_entropy columns (stage vectors). Here bulk_max
-- is over the mean eigenvalue and sigma_mp in weight units; WeightWatcher has bulk_max in weight^2 and sigma_mp bare.
SELECT
    repo_id, revision, component,
    matrix_index AS layer_id,
    slice_id,
    tensor AS longname,
    coalesce(ww_alpha, -1) AS alpha,
    CASE WHEN ww_num_fingers IS NOT NULL THEN coalesce(ww_raw_alpha, -1) END AS raw_alpha,
    CASE WHEN ww_status = 'success'
        THEN ww_alpha * (log_spectral_norm + shift) ELSE -(log_spectral_norm + shift) END AS alpha_weighted,
    coalesce(ww_D, -1) AS D,
    ww_entropy AS entropy,
    lambda_max * scale AS lambda_max,
    log_norm + shift AS log_norm,
    log_spectral_norm + shift AS log_spectral_norm,
    ww_matrix_rank AS matrix_rank,
    norm * scale AS norm,
    N, M, Q, rf, num_evals,
    ww_num_fingers AS num_fingers,
    coalesce(ww_num_pl_spikes, -1) AS num_pl_spikes,
    ww_rank_loss AS rank_loss,
    coalesce(ww_sigma, -1) AS sigma,
    lambda_max * scale AS spectral_norm,
    stable_rank, ww_status AS status,
    ww_sv_min AS sv_min,
    sqrt(lambda_max * scale) AS sv_max,
    ww_weak_rank_loss AS weak_rank_loss,
    CASE WHEN coalesce(ww_alpha, -1) < 2 THEN 'over-trained' WHEN ww_alpha > 6 THEN 'under-trained' ELSE '' END
        AS warning,
    ww_xmax AS xmax,
    coalesce(ww_xmin, -1) AS xmin,
    ww_detX_num AS detX_num,
    ww_detX_num AS num_ERG_spikes,
    ww_detX_num - coalesce(ww_num_pl_spikes, -1) AS ERG_gap,
    ww_detX_val AS detX_val,
    ww_detX_val * num_evals / (norm * scale) AS detX_val_unrescaled,
    num_spikes, mp_softrank,
    sqrt(sigma2_mp) AS sigma_mp,
    CASE WHEN len(shape) = 4 AND slice_id IS NULL THEN lambda_plus / N ELSE lambda_plus * num_evals / norm END
        AS bulk_max,
    rand_lambda_max * scale AS max_rand_eval,
    rand_softrank AS ww_softrank,
    (lambda_max - rand_lambda_max) * scale AS ww_maxdist,
    rand_distance_ww AS rand_distance,
    num_traps,
    vec_entropy_tail AS tail_mean_vec_entropy,
    vec_entropy_bulk AS bulk_mean_vec_entropy,
    config_fingerprint, scan_id
FROM (
    SELECT *, log10(scale) AS shift
    FROM (
        SELECT *,
            CASE WHEN len(shape) = 4 THEN shape[3] * shape[4] ELSE 1 END AS rf,
            CASE WHEN len(shape) <> 4 THEN 1.0 WHEN slice_id IS NULL THEN 0.5 ELSE shape[3] * shape[4] / 2 END
                AS scale
        FROM layers
        WHERE ww_status IS NOT NULL
    )
)
