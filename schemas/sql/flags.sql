-- One row per finding, about a layer or about a model as a whole (tensor is then NULL). Findings stored with the rows
-- come first; then those that need the whole lake, and change as it grows.
SELECT repo_id, revision, component, file, tensor, part, expert_id, slice_id, role, layer_index,
    f.kind AS flag, f.value, f.threshold, f.sentence, alpha, D_ks, n_tail, config_fingerprint, scan_id
FROM (SELECT *, unnest(findings) AS f FROM layers)
UNION ALL
SELECT repo_id, revision, component, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    f.kind, f.value, f.threshold, f.sentence, NULL, NULL, NULL, config_fingerprint, scan_id
FROM (SELECT *, unnest(findings) AS f FROM repositories)
UNION ALL
SELECT repo_id, revision, component, file, tensor, part, expert_id, slice_id, role, layer_index,
    'anomalous_alpha', alpha,
    median_alpha + (alpha - median_alpha) * anomalous_mads / deviations,  -- the nearest alpha that is not anomalous
    format(
        'alpha {:.2f} lies {:.1f} robust deviations from {:.2f}, the median of {} layers of role {} in its stratum',
        alpha, deviations, median_alpha, num_peers, role
    ),
    alpha, D_ks, n_tail, config_fingerprint, scan_id
FROM anomalies
UNION ALL
SELECT repo_id, revision, component, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    'depth_irregular', depth_roughness,
    flows[floor(place)::INT] + (place - floor(place)) * (flows[ceil(place)::INT] - flows[floor(place)::INT]),
    format(
        'alpha changes by {:.2f} from block to block, more than in {:.0f} % of the {} models of its stratum',
        depth_roughness, 100 * irregular_quantile, len(flows)
    ),
    NULL, NULL, NULL, config_fingerprint, scan_id
FROM (
    SELECT models.*, irregular_quantile, flows,
        1 + irregular_quantile * (len(flows) - 1) AS place  -- the quantile's place in the sorted list, counted from 1
    FROM models
    JOIN configs USING (config_fingerprint)
    JOIN (
        SELECT stratum_key, list(depth_roughness ORDER BY depth_roughness) AS flows
        FROM models
        WHERE stratum_n IS NOT NULL AND depth_roughness IS NOT NULL
        GROUP BY stratum_key
    ) USING (stratum_key)
    WHERE list_contains(flags, 'depth_irregular')
)
