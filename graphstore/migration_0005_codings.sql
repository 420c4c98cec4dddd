-- Edges in place may follow from codes. In graphs from before, they are entries of a tensor as it is.
CREATE TABLE codings (
    graph INTEGER NOT NULL,
    tensor VARCHAR NOT NULL,
    block INTEGER,
    coding VARCHAR NOT NULL
);
COMMENT ON TABLE codings IS 'One row per tensor, and per block in place, whose numbers follow from what the model file holds (packed or quantized codes, rows in another order) and are computed when they are asked for.';
COMMENT ON COLUMN codings.graph IS 'graphs.id.';
COMMENT ON COLUMN codings.tensor IS 'tensors.name.';
COMMENT ON COLUMN codings.block IS 'Of a block whose weights follow from the tensor, which is codes: blocks.id; NULL where the values of the tensor itself follow from what the file holds.';
COMMENT ON COLUMN codings.coding IS 'How, as JSON: an operation ("op", "args", "parts") or a tensor ("tensor"; of the file with "dtype", "shape" and "sha256", of the graph without).';
