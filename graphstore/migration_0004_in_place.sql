-- Edges of a block, and values of a tensor, may stay in the model file. In graphs from before, none do.
ALTER TABLE blocks ADD COLUMN place_offset BIGINT;
ALTER TABLE blocks ADD COLUMN place_steps BIGINT[];
ALTER TABLE blocks ADD COLUMN n_zeros BIGINT;
ALTER TABLE blocks ADD COLUMN n_negative BIGINT;
ALTER TABLE blocks ADD COLUMN n_nonfinite BIGINT;
ALTER TABLE blocks ADD COLUMN l1 DOUBLE;
ALTER TABLE blocks ADD COLUMN l2 DOUBLE;
ALTER TABLE blocks ADD COLUMN max_abs DOUBLE;
COMMENT ON COLUMN blocks.place_offset IS 'Of a block in place, whose edges are not rows but stay in the model file: element of the tensor, in C order, that is the first entry of the matrix; NULL for a block whose edges are rows.';
COMMENT ON COLUMN blocks.place_steps IS 'Of a block in place: elements of the tensor from one row of the matrix to the next, and from one column to the next; NULL otherwise.';
COMMENT ON COLUMN blocks.n_zeros IS 'Of a block in place: entries of the matrix that are exactly zero, and so no edges; NULL otherwise.';
COMMENT ON COLUMN blocks.n_negative IS 'Of a block in place: edges with a weight below zero; NULL otherwise.';
COMMENT ON COLUMN blocks.n_nonfinite IS 'Of a block in place: edges whose weight is NaN or infinite; NULL otherwise.';
COMMENT ON COLUMN blocks.l1 IS 'Of a block in place: sum of the absolute finite weights; NULL otherwise.';
COMMENT ON COLUMN blocks.l2 IS 'Of a block in place: square root of the sum of squares of the finite weights; NULL otherwise.';
COMMENT ON COLUMN blocks.max_abs IS 'Of a block in place: largest absolute finite weight; NULL otherwise.';
ALTER TABLE tensors ADD COLUMN shard VARCHAR;
ALTER TABLE tensors ADD COLUMN shard_offset BIGINT;
COMMENT ON COLUMN tensors.shard IS 'Of a tensor whose values stay in the model file: file name, without folders; never opened by the tool. NULL when the store holds the values.';
COMMENT ON COLUMN tensors.shard_offset IS 'First byte of the values in that file; NULL otherwise.';
COMMENT ON TABLE tensors IS 'One row per parameter tensor of the model. Its values are in tensor_parts, or are the matrix of a block, or stay in the model file.';
COMMENT ON COLUMN tensors.block IS 'Block whose matrix is the tensor: blocks.id; NULL when the values are in tensor_parts or in the model file.';
COMMENT ON VIEW edges IS 'One row per edge, with its graph, layers and kind. Edges of blocks in place are in it when the model file is given (--model).';
CREATE TABLE strengths (
    block INTEGER NOT NULL,
    unit INTEGER NOT NULL,
    outgoing BOOLEAN NOT NULL,
    degree INTEGER NOT NULL,
    total DOUBLE NOT NULL,
    l1 DOUBLE NOT NULL
);
COMMENT ON TABLE strengths IS 'One row per unit and side of a block in place: its edges in sum. Query the view unit_strengths instead, which has all blocks.';
COMMENT ON COLUMN strengths.block IS 'blocks.id.';
COMMENT ON COLUMN strengths.unit IS 'units.id.';
COMMENT ON COLUMN strengths.outgoing IS 'True for edges that lead out of the unit, false for those that lead into it.';
COMMENT ON COLUMN strengths.degree IS 'Edges of the block on that side of the unit.';
COMMENT ON COLUMN strengths.total IS 'Sum of their finite weights.';
COMMENT ON COLUMN strengths.l1 IS 'Sum of their absolute finite weights.';

CREATE VIEW unit_strengths AS
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
COMMENT ON VIEW unit_strengths IS 'One row per unit, block and side: how many edges it has there, and their weights in sum. It needs no model file for blocks in place.';
COMMENT ON COLUMN unit_strengths.graph IS 'graphs.id.';
COMMENT ON COLUMN unit_strengths.layer IS 'Target layer of the block: layers.id.';
COMMENT ON COLUMN unit_strengths.kind IS 'Kind of the edges: blocks.kind.';
COMMENT ON COLUMN unit_strengths.tensor IS 'Parameter tensor behind the edges: tensors.name; NULL for structural edges.';
COMMENT ON COLUMN unit_strengths.block IS 'blocks.id.';
COMMENT ON COLUMN unit_strengths.unit IS 'units.id.';
COMMENT ON COLUMN unit_strengths.outgoing IS 'True for edges that lead out of the unit, false for those that lead into it.';
COMMENT ON COLUMN unit_strengths.degree IS 'Edges of the block on that side of the unit.';
COMMENT ON COLUMN unit_strengths.total IS 'Sum of their finite weights; 0 where no parameter carries the influence.';
COMMENT ON COLUMN unit_strengths.l1 IS 'Sum of the absolute values of their finite parameters; 0 likewise.';
