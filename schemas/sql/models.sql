-- One row per repository, revision, component and config: every aggregate of the layer table.
-- The only definition of a model's metrics; the models/ Parquet is a snapshot of this view.
WITH body AS (
    SELECT *,
        list_contains(flags, 'fit_unreliable') AS unreliable,
        CASE WHEN lora_rank IS NULL THEN N::DOUBLE * M * kernel_size ELSE (N::DOUBLE + M) * lora_rank END
            AS numel,
        lambda_max * (ln(lambda_max) - 1) AS legacy_b,
        regexp_extract(tensor, '^[^0-9]*') AS stack
    FROM layers
),
totals AS (
    SELECT
        repo_id, revision, component, config_fingerprint,
        count(*) FILTER (status = 'ok') AS num_ok,
        count(*) FILTER (status = 'skipped') AS num_skipped,
        count(*) FILTER (status = 'failed') AS num_failed,
        count(*) FILTER (counted) AS num_counted,
        count(*) FILTER (fit_status = 'ok') AS num_fit_ok,
        count(*) FILTER (unreliable) AS num_fit_unreliable,
        sum(numel) FILTER (status = 'ok') AS numel_ok,
        sum(secs) AS secs,
        max(estimator) AS estimator,
        avg(alpha) FILTER (counted) AS alpha_mean,
        avg(alpha) FILTER (role <> 'lora') AS alpha_mean_all,
        CASE WHEN bool_or(is_last) THEN avg(alpha) FILTER (counted AND NOT is_last) END AS alpha_mean_star,
        avg(alpha) FILTER (counted AND NOT unreliable) AS alpha_mean_reliable,
        sum(alpha * numel) FILTER (counted) / sum(numel) FILTER (counted) AS alpha_mean_numel,
        median(alpha) FILTER (counted) AS alpha_median,
        stddev_samp(alpha) FILTER (counted) AS alpha_std,
        quantile_cont(alpha, 0.1) FILTER (counted) AS alpha_p10,
        quantile_cont(alpha, 0.9) FILTER (counted) AS alpha_p90,
        avg(alpha_hill) FILTER (counted) AS alpha_hill_mean,
        median(alpha_hill) FILTER (counted) AS alpha_hill_median,
        avg(alpha_trunc) FILTER (counted) AS alpha_trunc_mean,
        avg(alpha_weighted) FILTER (counted) AS alpha_weighted_mean,
        avg(alpha_weighted) FILTER (role <> 'lora') AS alpha_weighted_mean_all,
        CASE WHEN bool_or(is_last) THEN avg(alpha_weighted) FILTER (counted AND NOT is_last) END
            AS alpha_weighted_mean_star,
        sum(alpha_weighted) FILTER (counted) AS alpha_weighted_sum,
        avg(alpha * log_spectral_norm_n) FILTER (counted) AS alpha_weighted_n_mean,
        avg(legacy_b * (alpha - 1)) FILTER (counted) AS legacy_bform_mean,
        sum(sqrt(greatest(legacy_b * (alpha - 1), 0))) FILTER (counted AND legacy_b > 0 AND alpha > 1)
            AS legacy_bsqrt_sum,
        avg(log_norm) FILTER (counted) AS log_norm_mean,
        sum(log_norm) FILTER (counted) AS log_norm_sum,
        avg(log_spectral_norm) FILTER (counted) AS log_spectral_norm_mean,
        sum(log_spectral_norm) FILTER (counted) AS log_spectral_norm_sum,
        avg(log_alpha_norm) FILTER (counted) AS log_alpha_norm_mean,
        avg(log_soft_rank) FILTER (counted) AS log_soft_rank_mean,
        avg(stable_rank) FILTER (counted) AS stable_rank_mean,
        avg(mp_softrank) FILTER (counted) AS mp_softrank_mean,
        median(mp_softrank) FILTER (counted) AS mp_softrank_median,
        avg(D_ks) FILTER (counted) AS D_ks_mean,
        avg(rand_distance) FILTER (counted) AS rand_distance_mean,
        avg(entropy) FILTER (counted) AS entropy_mean,
        avg((alpha BETWEEN 2 AND 4)::INT) FILTER (counted) AS frac_2_4,
        avg((alpha BETWEEN 1.5 AND 5)::INT) FILTER (counted) AS frac_15_5,
        avg((alpha < 2)::INT) FILTER (counted) AS frac_lt_2,
        avg((alpha > 6)::INT) FILTER (counted) AS frac_gt_6,
        sum(num_traps) AS num_traps,
        count(*) FILTER (list_contains(flags, 'scale_outlier')) AS num_scale_outlier,
        count(*) FILTER (list_contains(flags, 'rank_collapse')) AS num_rank_collapse,
        count(base_repo_id) > 0 AS has_base,
        count(*) FILTER (base_status IN ('ok', 'same_file')) AS pairs,
        count(*) FILTER (base_status IN ('no_match', 'shape_mismatch')) AS unmatched,
        median(CASE base_status WHEN 'same_file' THEN 0 ELSE rel_delta END) AS rel_delta_median,
        avg(CASE base_status WHEN 'same_file' THEN 0 ELSE d_alpha END) AS d_alpha_mean,
        avg(CASE base_status WHEN 'same_file' THEN 0 ELSE d_log_spectral_norm END) AS d_log_spectral_norm_mean,
        list_distinct(flatten(list(flags))) AS layer_flags,
        histogram(phase) AS phases,
        count(phase) AS num_phases
    FROM body
    GROUP BY repo_id, revision, component, config_fingerprint
),
-- Blocks in the order of the data: the encoder's before the decoder's, each stack of blocks (its name before the first
-- digit) by number. No step leads from one stack to the next. Tied means share the middle of their ranks: a window by
-- order counts up to the last of its ties.
blocks AS (
    SELECT repo_id, revision, component, config_fingerprint, stack, layer_index, avg(alpha) AS a,
        row_number() OVER w - 1 AS k,
        (rank() OVER r + count(*) OVER r) / 2 AS a_rank,
        avg(alpha) - lag(avg(alpha)) OVER s AS step
    FROM body
    WHERE counted AND layer_index IS NOT NULL
    GROUP BY repo_id, revision, component, config_fingerprint, stack, layer_index
    WINDOW
        w AS (
            PARTITION BY repo_id, revision, component, config_fingerprint
            ORDER BY contains(stack, 'decoder'), stack, layer_index
        ),
        s AS (PARTITION BY repo_id, revision, component, config_fingerprint, stack ORDER BY layer_index),
        r AS (PARTITION BY repo_id, revision, component, config_fingerprint ORDER BY avg(alpha))
),
depth AS (
    SELECT repo_id, revision, component, config_fingerprint,
        regr_slope(a, k) * (count(*) - 1) AS depth_slope,
        corr(a_rank, k) AS depth_rho,
        avg(abs(step)) AS depth_roughness
    FROM blocks
    GROUP BY repo_id, revision, component, config_fingerprint
    HAVING count(*) >= 4
),
anomalous AS (
    SELECT repo_id, revision, component, config_fingerprint, count(*) AS anomalous_layers
    FROM anomalies
    GROUP BY repo_id, revision, component, config_fingerprint
),
joined AS (
    SELECT facts.*, totals.* EXCLUDE (repo_id, revision, component, config_fingerprint, secs),
        depth_slope, depth_rho, depth_roughness,
        CASE
            WHEN coalesce(num_ok, 0) = 0 AND coalesce(num_failed, 0) + num_files_failed > 0 THEN 'failed'
            WHEN coalesce(num_failed, 0) + num_files_failed > 0 THEN 'partial'
            WHEN coalesce(num_ok, 0) = 0 THEN 'skipped'
            ELSE 'ok'
        END AS status,
        CASE WHEN anomalous_layers > 0 THEN ['anomalous_alpha'] ELSE [] END AS lake_flags,
        latest, strata.stratum_key AS comparable, irregular_quantile, irregular_peers_min
    FROM repositories AS facts
    JOIN strata
        ON strata.repo_id = facts.repo_id AND strata.revision = facts.revision
        AND strata.component IS NOT DISTINCT FROM facts.component
        AND strata.config_fingerprint = facts.config_fingerprint
    LEFT JOIN anomalous
        ON anomalous.repo_id = facts.repo_id AND anomalous.revision = facts.revision
        AND anomalous.component IS NOT DISTINCT FROM facts.component
        AND anomalous.config_fingerprint = facts.config_fingerprint
    LEFT JOIN totals
        ON totals.repo_id = facts.repo_id AND totals.revision = facts.revision
        AND totals.component IS NOT DISTINCT FROM facts.component
        AND totals.config_fingerprint = facts.config_fingerprint
    LEFT JOIN depth
        ON depth.repo_id = facts.repo_id AND depth.revision = facts.revision
        AND depth.component IS NOT DISTINCT FROM facts.component
        AND depth.config_fingerprint = facts.config_fingerprint
),
placed AS (
    SELECT *, CASE WHEN status <> 'failed' THEN comparable END AS stratum_key
    FROM joined
),
ranked AS (
    SELECT *,
        latest AND num_counted > 0 AND stratum_key IS NOT NULL AS competes,
        count(*) FILTER (latest AND num_counted > 0) OVER (PARTITION BY stratum_key) AS n,
        rank() OVER (
            PARTITION BY stratum_key, latest AND num_counted > 0 ORDER BY alpha_hill_mean NULLS LAST
        ) AS place,
        count(depth_roughness) FILTER (latest) OVER (PARTITION BY stratum_key) AS flows,
        percent_rank() OVER (
            PARTITION BY stratum_key, latest AND depth_roughness IS NOT NULL ORDER BY depth_roughness
        ) AS roughness_place
    FROM placed
),
judged AS (
    SELECT *,
        lake_flags || CASE
            WHEN latest AND depth_roughness IS NOT NULL AND flows >= irregular_peers_min
                AND roughness_place > irregular_quantile
            THEN ['depth_irregular'] ELSE [] END AS hub_flags
    FROM ranked
)
SELECT
    scan_id, repo_id, revision, config_fingerprint, code_version,
    coalesce(estimator, '') AS estimator,
    component, architecture, library_name, pipeline_tag, license, base_model, dtype_main, quant_method,
    downloads, likes, params, tokens, last_modified, scanned_at, status,
    num_planned AS num_matrices,
    coalesce(num_ok, 0)::INT AS num_ok,
    coalesce(num_skipped, 0)::INT AS num_skipped,
    coalesce(num_failed, 0)::INT AS num_failed,
    coalesce(num_counted, 0)::INT AS num_counted,
    coalesce(num_fit_ok, 0)::INT AS num_fit_ok,
    coalesce(num_fit_unreliable, 0)::INT AS num_fit_unreliable,
    coalesce(numel_ok, 0) / nullif(params, 0) AS coverage_params,
    bytes_read, secs,
    alpha_mean, alpha_mean_all, alpha_mean_star, alpha_mean_reliable, alpha_mean_numel, alpha_median,
    alpha_std, alpha_p10, alpha_p90, alpha_hill_mean, alpha_hill_median, alpha_trunc_mean,
    alpha_weighted_mean, alpha_weighted_mean_all, alpha_weighted_mean_star, alpha_weighted_sum,
    alpha_weighted_n_mean, legacy_bform_mean, legacy_bsqrt_sum, log_norm_mean, log_norm_sum,
    log_spectral_norm_mean, log_spectral_norm_sum, log_alpha_norm_mean, log_soft_rank_mean, stable_rank_mean,
    mp_softrank_mean, mp_softrank_median, D_ks_mean, rand_distance_mean, entropy_mean,
    frac_2_4, frac_15_5, frac_lt_2, frac_gt_6, depth_slope, depth_rho, depth_roughness,
    map_from_entries(list_transform(map_entries(phases), lambda e: (e.key, e.value / num_phases))) AS phase_shares,
    num_traps::INT AS num_traps,
    coalesce(num_scale_outlier, 0)::INT AS num_scale_outlier,
    coalesce(num_rank_collapse, 0)::INT AS num_rank_collapse,
    CASE WHEN has_base THEN pairs::INT END AS base_pairs,
    CASE WHEN has_base THEN unmatched::INT END AS base_unmatched,
    rel_delta_median, d_alpha_mean, d_log_spectral_norm_mean, stratum_key,
    CASE WHEN competes AND n >= 5 THEN place::INT END AS stratum_rank,
    CASE WHEN latest THEN n::INT END AS stratum_n,
    list_sort(list_distinct(
        coalesce(layer_flags, []) || list_transform(findings, lambda f: f.kind) || hub_flags
    )) AS flags
FROM judged
