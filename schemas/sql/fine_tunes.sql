-- One row per fine-tune that was held against its base: how far it went, and its worst layer.
-- worst_*: the layer with the most findings against the base, then the one that changed most.
WITH pairs AS (
    SELECT *,
        list_filter(flags, lambda f: f IN ('ft_unstable', 'scale_collapse')) AS pair_flags
    FROM layers
    WHERE base_repo_id IS NOT NULL
),
totals AS (
    SELECT
        repo_id, revision, component, config_fingerprint,
        any_value(base_repo_id) AS base_repo_id,
        any_value(base_revision) AS base_revision,
        (count(*) FILTER (base_status = 'same_file'))::INT AS base_same_file,
        (count(*) FILTER (base_status = 'failed'))::INT AS base_failed,
        (count(*) FILTER (list_contains(flags, 'ft_unstable')))::INT AS num_ft_unstable,
        (count(*) FILTER (list_contains(flags, 'scale_collapse')))::INT AS num_scale_collapse,
        max(rel_delta) AS rel_delta_max,
        max(d_alpha) AS d_alpha_max,
        min(d_alpha) AS d_alpha_min,
        avg(subspace_overlap10) AS subspace_overlap10_mean,
        first(tensor ORDER BY len(pair_flags) DESC, rel_delta DESC NULLS LAST, matrix_index)
            FILTER (base_status = 'ok') AS worst_tensor,
        first(rel_delta ORDER BY len(pair_flags) DESC, rel_delta DESC NULLS LAST, matrix_index)
            FILTER (base_status = 'ok') AS worst_rel_delta,
        first(pair_flags ORDER BY len(pair_flags) DESC, rel_delta DESC NULLS LAST, matrix_index)
            FILTER (base_status = 'ok') AS worst_flags
    FROM pairs
    GROUP BY repo_id, revision, component, config_fingerprint
)
SELECT
    m.repo_id, m.revision, m.component, t.base_repo_id, t.base_revision,
    m.base_pairs, m.base_unmatched, t.base_same_file, t.base_failed,
    m.rel_delta_median, t.rel_delta_max, m.d_alpha_mean, t.d_alpha_min, t.d_alpha_max,
    m.d_log_spectral_norm_mean, t.subspace_overlap10_mean, t.num_ft_unstable, t.num_scale_collapse,
    t.worst_tensor, t.worst_rel_delta, t.worst_flags,
    list_filter(m.flags, lambda f: f IN ('ft_unstable', 'ft_noop', 'scale_collapse', 'scale_shift')) AS flags,
    m.alpha_mean, m.num_counted, m.status, m.downloads, m.config_fingerprint, m.scan_id, m.scanned_at
FROM totals t
JOIN models m
    ON m.repo_id = t.repo_id AND m.revision = t.revision
    AND m.component IS NOT DISTINCT FROM t.component
    AND m.config_fingerprint = t.config_fingerprint
ORDER BY t.num_ft_unstable + t.num_scale_collapse DESC, m.rel_delta_median DESC NULLS LAST, m.repo_id
