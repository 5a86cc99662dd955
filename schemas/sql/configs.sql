-- One row per configuration that scanned into this lake: the estimator and the thresholds of hub-level findings.
SELECT config_fingerprint,
    any_value(estimator) AS estimator,
    any_value(config_json ->> '$.profile') AS profile,
    any_value(config_json ->> '$.matrices.conv_mode') AS conv_mode,
    any_value((config_json ->> '$.matrices.as_stored')::BOOLEAN) AS as_stored,
    any_value((config_json ->> '$.thresholds.anomalous_mads')::DOUBLE) AS anomalous_mads,
    any_value((config_json ->> '$.thresholds.anomalous_peers_min')::INT) AS anomalous_peers_min,
    any_value((config_json ->> '$.thresholds.anomalous_models_min')::INT) AS anomalous_models_min,
    any_value((config_json ->> '$.thresholds.irregular_quantile')::DOUBLE) AS irregular_quantile,
    any_value((config_json ->> '$.thresholds.irregular_peers_min')::INT) AS irregular_peers_min,
    count(*) AS num_runs,
    any_value(config_json) AS config_json
FROM runs
GROUP BY config_fingerprint
