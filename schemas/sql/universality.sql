-- How alphas spread over a stratum, role by role, in the universality classes: alpha > 6 weakly heavy-tailed, 2 to 6
-- moderately ("fat"), 1 to 2 very. Only the latest scan of a model; frac_15_5 stands beside the narrower frac_2_4.
SELECT stratum_key, role,
    count(DISTINCT (layers.repo_id, layers.component)) AS num_models,
    count(*) AS num_layers,
    count(*) FILTER (NOT list_contains(flags, 'fit_unreliable')) AS num_reliable,
    avg((alpha < 2)::INT) AS frac_very_heavy,
    avg((alpha BETWEEN 2 AND 6)::INT) AS frac_moderately_heavy,
    avg((alpha > 6)::INT) AS frac_weakly_heavy,
    avg((alpha BETWEEN 2 AND 4)::INT) AS frac_2_4,
    avg((alpha BETWEEN 1.5 AND 5)::INT) AS frac_15_5,
    quantile_cont(alpha, 0.1) AS alpha_p10,
    median(alpha) AS alpha_median,
    quantile_cont(alpha, 0.9) AS alpha_p90,
    median(alpha_hill) AS alpha_hill_median
FROM layers
JOIN strata
    ON strata.repo_id = layers.repo_id AND strata.revision = layers.revision
    AND strata.component IS NOT DISTINCT FROM layers.component
    AND strata.config_fingerprint = layers.config_fingerprint
WHERE latest AND counted
GROUP BY stratum_key, role
ORDER BY num_layers DESC, stratum_key, role
