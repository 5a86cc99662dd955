-- How alpha runs along the depth of a model, role by role (at least 4 blocks): the change from first to last block by
-- least squares, Spearman's correlation with depth, and the mean step between neighbours. Encoder blocks come before
-- decoder blocks; no step leads from one stack of blocks to the next. Tied blocks share the middle of their ranks: a
-- window by order counts up to the last of its ties.
WITH blocks AS (
    SELECT repo_id, revision, component, config_fingerprint, role, layer_index, avg(alpha) AS a,
        regexp_extract(tensor, '^[^0-9]*') AS stack
    FROM layers
    WHERE counted AND layer_index IS NOT NULL
    GROUP BY repo_id, revision, component, config_fingerprint, role, layer_index, stack
),
steps AS (
    SELECT *,
        row_number() OVER w - 1 AS k,
        (rank() OVER r + count(*) OVER r) / 2 AS a_rank,
        a - lag(a) OVER s AS step
    FROM blocks
    WINDOW
        w AS (
            PARTITION BY repo_id, revision, component, config_fingerprint, role
            ORDER BY contains(stack, 'decoder'), stack, layer_index
        ),
        s AS (PARTITION BY repo_id, revision, component, config_fingerprint, role, stack ORDER BY layer_index),
        r AS (PARTITION BY repo_id, revision, component, config_fingerprint, role ORDER BY a)
)
SELECT repo_id, revision, component, config_fingerprint, role,
    count(*) AS num_blocks,
    regr_slope(a, k) * (count(*) - 1) AS depth_slope,
    corr(a_rank, k) AS depth_rho,
    avg(abs(step)) AS depth_roughness,
    arg_max(layer_index, a) AS lightest_block,
    arg_min(layer_index, a) AS heaviest_block
FROM steps
GROUP BY repo_id, revision, component, config_fingerprint, role
HAVING count(*) >= 4
ORDER BY repo_id, component, role
