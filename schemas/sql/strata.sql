-- Which models may be ranked together: the stratum of every scanned component, and whether it is its latest scan.
SELECT repo_id, revision, component, config_fingerprint,
    concat_ws(
        ' | ',
        coalesce(pipeline_tag, '?'),
        coalesce(architecture, '?'),
        CASE WHEN params > 0 THEN '2^' || floor(log2(params))::INT || ' params' ELSE '?' END,
        CASE WHEN quant_method IS NULL THEN 'plain' ELSE 'quantised' END,
        -- the same estimator of other matrices is another number
        concat_ws(
            ' ',
            coalesce(estimator, '?'),
            CASE WHEN conv_mode <> 'pool' THEN conv_mode END,
            CASE WHEN as_stored THEN 'as stored' END
        )
    ) AS stratum_key,
    row_number() OVER (PARTITION BY repo_id, component ORDER BY scanned_at DESC, revision) = 1 AS latest,
    anomalous_mads, anomalous_peers_min, anomalous_models_min, irregular_quantile, irregular_peers_min
FROM repositories
LEFT JOIN configs USING (config_fingerprint)
