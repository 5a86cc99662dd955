-- The latest scan of every model that has at least one counted layer, stratum by stratum.
-- A rank exists only inside a stratum of five or more; lower alpha_hill_mean ranks first.
SELECT
    stratum_key, stratum_rank, stratum_n, repo_id, component, status,
    alpha_hill_mean, log_spectral_norm_mean, alpha_mean, alpha_median, alpha_weighted_mean,
    num_counted, num_fit_unreliable, frac_2_4, frac_15_5, mp_softrank_median,
    params, dtype_main, downloads, base_model, flags, revision, config_fingerprint, scanned_at
FROM models
WHERE stratum_n IS NOT NULL AND num_counted > 0
ORDER BY stratum_n DESC, stratum_key, stratum_rank NULLS LAST, alpha_hill_mean, repo_id
