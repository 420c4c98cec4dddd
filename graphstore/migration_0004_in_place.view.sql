-- A store of version 3 that is opened for reading stays as it is, and shows that nothing of it is in place.
CREATE TEMP VIEW blocks AS SELECT *, NULL::BIGINT AS place_offset, NULL::BIGINT[] AS place_steps, NULL::BIGINT AS n_zeros, NULL::BIGINT AS n_negative, NULL::BIGINT AS n_nonfinite, NULL::DOUBLE AS l1, NULL::DOUBLE AS l2, NULL::DOUBLE AS max_abs FROM {store}.main.blocks;
CREATE TEMP VIEW tensors AS SELECT *, NULL::VARCHAR AS shard, NULL::BIGINT AS shard_offset FROM {store}.main.tensors;
CREATE TEMP VIEW strengths AS SELECT 0 AS block, 0 AS unit, false AS outgoing, 0 AS degree, 0::DOUBLE AS total, 0::DOUBLE AS l1 WHERE false;
CREATE TEMP VIEW unit_strengths AS
SELECT b.graph, b.layer, b.kind, b.tensor, s.block, s.unit, s.outgoing, s.degree, s.total, s.l1
FROM (
    SELECT block, unit, outgoing, degree::BIGINT AS degree, total, l1 FROM strengths
    UNION ALL
    SELECT block, src, true, count(*), coalesce(sum(weight::DOUBLE) FILTER (isfinite(weight)), 0),
        coalesce(sum(abs(weight::DOUBLE)) FILTER (isfinite(weight)), 0)
    FROM connections GROUP BY block, src
    UNION ALL
    SELECT block, dst, false, count(*), coalesce(sum(weight::DOUBLE) FILTER (isfinite(weight)), 0),
        coalesce(sum(abs(weight::DOUBLE)) FILTER (isfinite(weight)), 0)
    FROM connections GROUP BY block, dst
    UNION ALL
    SELECT block, src, true, count(*), coalesce(sum(weight::DOUBLE) FILTER (isfinite(weight)), 0),
        coalesce(sum(l1) FILTER (isfinite(l1)), 0)
    FROM kernels GROUP BY block, src
    UNION ALL
    SELECT block, dst, false, count(*), coalesce(sum(weight::DOUBLE) FILTER (isfinite(weight)), 0),
        coalesce(sum(l1) FILTER (isfinite(l1)), 0)
    FROM kernels GROUP BY block, dst
) AS s
JOIN blocks AS b ON b.id = s.block;
