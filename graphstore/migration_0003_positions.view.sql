-- A store of version 2 that is opened for reading stays as it is, and shows the columns without values.
CREATE TEMP VIEW activations AS
SELECT *, NULL::BIGINT AS n_positions, NULL::FLOAT[] AS values_abs, NULL::FLOAT[] AS values_max
FROM {store}.main.activations;
