-- The generalization metrics of the NLP study of Yang et al. (arXiv 2202.02842) that weights alone can give, under
-- their names: one row per model. Sums and means run over its ok matrices without LoRA pairs; convolutions count when
-- they were flattened (conv_mode flatten), and left_out says how many rows were pooled or sliced instead. Published
-- without the division by the size of the data set. A metric whose stage was off is NULL: E_TPL_* and EXP_lambda need
-- alternatives, rand_distance null_model, the vec_entropy means vectors. L2_DIST, FRO_DIST, DIST_SPEC_INIT and W_CKA
-- are distances to the base on the hub (base_status ok), not to the initialisation. PATH_NORM needs the architecture.
WITH measured AS (
    SELECT *,
        conv_mode IS NULL OR conv_mode = 'flatten' AS taken,
        -- the squared Frobenius norm of the difference: rel_delta is over the norm of the base
        rel_delta * rel_delta * norm / pow(10, d_log_norm) AS delta_norm,
        CASE WHEN rel_delta = 0 THEN 0 ELSE pow(10, delta_log_spectral_norm) END AS delta_lambda_max
    FROM layers
    WHERE status = 'ok' AND role <> 'lora' AND norm > 0
)
SELECT
    repo_id, revision, component, config_fingerprint,
    count(*) FILTER (taken) AS num_matrices,
    count(*) FILTER (NOT taken) AS left_out,
    sqrt(sum(norm) FILTER (taken)) AS L2,
    sum(norm) FILTER (taken) AS PARAM_NORM,
    sum(ln(norm)) FILTER (taken) AS LOG_PROD_OF_FRO,
    sum(ln(lambda_max)) FILTER (taken) AS LOG_PROD_OF_SPEC,
    ln(nullif(num_matrices, 0)) + avg(ln(norm)) FILTER (taken) AS LOG_SUM_OF_FRO,
    ln(nullif(num_matrices, 0)) + avg(ln(lambda_max)) FILTER (taken) AS LOG_SUM_OF_SPEC,
    avg(log_norm) FILTER (taken) AS log_norm,
    avg(log_spectral_norm) FILTER (taken) AS log_spectral_norm,
    avg(mp_softrank) FILTER (taken) AS mp_softrank,
    avg(stable_rank) FILTER (taken) AS stable_rank,
    avg(alpha_weighted) FILTER (taken) AS alpha_weighted,
    avg(log_alpha_norm) FILTER (taken) AS log_alpha_norm,
    avg(entropy) FILTER (taken) AS entropy,
    avg(alpha) FILTER (taken) AS PL_alpha,
    avg(D_ks) FILTER (taken) AS PL_KS_distance,
    avg(etpl_beta) FILTER (taken) AS E_TPL_beta,
    avg(etpl_lambda) FILTER (taken) AS E_TPL_lambda,
    avg(etpl_D_ks) FILTER (taken) AS E_TPL_KS_distance,
    avg(exp_lambda) FILTER (taken) AS EXP_lambda,
    avg(rand_distance_ww) FILTER (taken) AS rand_distance,
    avg(vec_entropy_tail) FILTER (taken) AS tail_mean_vec_entropy,
    avg(vec_entropy_bulk) FILTER (taken) AS bulk_mean_vec_entropy,
    sqrt(sum(delta_norm) FILTER (taken AND base_status = 'ok')) AS L2_DIST,
    sum(delta_norm) FILTER (taken AND base_status = 'ok') AS FRO_DIST,
    sum(delta_lambda_max) FILTER (taken AND base_status = 'ok') AS DIST_SPEC_INIT,
    avg(cka) FILTER (taken AND base_status = 'ok') AS W_CKA
FROM measured
GROUP BY repo_id, revision, component, config_fingerprint
ORDER BY repo_id, component
