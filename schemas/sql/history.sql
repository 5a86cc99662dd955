-- The scans of each model in order: what changed since the revision before (d_ = this minus the one before), and
-- which findings came and went. One config at a time, since numbers of two configs do not compare.
SELECT repo_id, component, config_fingerprint, revision, last_modified, scanned_at, status, num_counted,
    alpha_hill_mean, alpha_mean, log_spectral_norm_mean, stable_rank_mean, mp_softrank_median,
    row_number() OVER w AS scan_number,
    alpha_hill_mean - lag(alpha_hill_mean) OVER w AS d_alpha_hill_mean,
    alpha_mean - lag(alpha_mean) OVER w AS d_alpha_mean,
    log_spectral_norm_mean - lag(log_spectral_norm_mean) OVER w AS d_log_spectral_norm_mean,
    num_counted - lag(num_counted) OVER w AS d_num_counted,
    flags,
    list_filter(flags, lambda f: NOT list_contains(lag(flags) OVER w, f)) AS flags_new,
    list_filter(lag(flags) OVER w, lambda f: NOT list_contains(flags, f)) AS flags_gone
FROM models
WINDOW w AS (PARTITION BY repo_id, component, config_fingerprint ORDER BY scanned_at, revision)
ORDER BY repo_id, component, config_fingerprint, scanned_at, revision
