-- Layers whose alpha is far from that of the same role in the same stratum (anomalous_alpha). Only the latest scan of
-- a model and only reliable fits are compared, and are compared with; the numbers change as the lake grows.
WITH reliable AS (
    SELECT layers.repo_id, layers.revision, layers.component, layers.config_fingerprint, scan_id, file, tensor, part,
        expert_id, slice_id, role, layer_index, alpha, D_ks, n_tail, stratum_key, anomalous_mads, anomalous_peers_min,
        anomalous_models_min
    FROM layers
    JOIN strata
        ON strata.repo_id = layers.repo_id AND strata.revision = layers.revision
        AND strata.component IS NOT DISTINCT FROM layers.component
        AND strata.config_fingerprint = layers.config_fingerprint
    WHERE latest AND fit_status = 'ok' AND role <> 'lora' AND NOT list_contains(flags, 'fit_unreliable')
),
peers AS (
    SELECT stratum_key, role, count(*) AS num_peers, count(DISTINCT repo_id) AS num_models,
        median(alpha) AS median_alpha, 1.4826 * mad(alpha) AS spread
    FROM reliable
    GROUP BY stratum_key, role
)
SELECT repo_id, revision, component, config_fingerprint, scan_id, stratum_key, file, tensor, part, expert_id, slice_id,
    role, layer_index, alpha, D_ks, n_tail, num_peers, median_alpha,
    abs(alpha - median_alpha) / spread AS deviations,
    anomalous_mads
FROM reliable
JOIN peers USING (stratum_key, role)
WHERE spread > 0 AND num_peers >= anomalous_peers_min AND num_models >= anomalous_models_min
    AND abs(alpha - median_alpha) > anomalous_mads * spread
