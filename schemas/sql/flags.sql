-- One row per finding, about a layer or about a model as a whole (tensor is then NULL).
SELECT repo_id, revision, component, file, tensor, part, expert_id, slice_id, role, layer_index,
    f.kind AS flag, f.value, f.threshold, f.sentence, alpha, D_ks, n_tail, config_fingerprint, scan_id
FROM (SELECT *, unnest(findings) AS f FROM layers)
UNION ALL
SELECT repo_id, revision, component, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    f.kind, f.value, f.threshold, f.sentence, NULL, NULL, NULL, config_fingerprint, scan_id
FROM (SELECT *, unnest(findings) AS f FROM repositories)
