-- Shape against scale inside a family (architecture and task), with the size of model and data where the card states it.
-- In the load and temperature picture of learning, load is data per parameter and temperature the noise of training;
-- shape metrics follow temperature, scale metrics follow load (arXiv 2106.00734). What this view cannot show: neither
-- axis is measured here, only their shadow in the weights; noise in labels, batch size and learning rate are unknown;
-- and a place in the plane says nothing across families, whose medians differ by construction.
SELECT architecture AS family, pipeline_tag, repo_id, component, revision, config_fingerprint,
    params, tokens,
    tokens / nullif(params, 0) AS load,
    alpha_hill_mean AS shape,
    log_spectral_norm_mean AS scale,
    alpha_hill_mean - median(alpha_hill_mean) OVER family AS shape_dev,
    log_spectral_norm_mean - median(log_spectral_norm_mean) OVER family AS scale_dev,
    count(*) OVER family AS family_n,
    num_counted, flags
FROM models
WHERE stratum_n IS NOT NULL AND num_counted > 0 AND architecture IS NOT NULL
WINDOW family AS (PARTITION BY architecture, pipeline_tag)
ORDER BY family_n DESC, family, pipeline_tag, shape, repo_id
