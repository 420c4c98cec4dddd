-- Statistics of units are over samples and positions. Traces from before keep their numbers, which are of one
-- mean over positions per sample, and have no number of positions.
ALTER TABLE activations ADD COLUMN n_positions BIGINT;
ALTER TABLE activations ADD COLUMN values_abs FLOAT[];
ALTER TABLE activations ADD COLUMN values_max FLOAT[];
COMMENT ON TABLE activations IS 'One row per unit within a trace: statistics over all samples and all positions (pixels, time steps, tokens) that carry the unit.';
COMMENT ON COLUMN activations.mean IS 'Mean over samples and positions, in the units of the activation.';
COMMENT ON COLUMN activations.std IS 'Standard deviation over samples and positions (divisor n * n_positions).';
COMMENT ON COLUMN activations.share_positive IS 'Share of values above 0, in [0, 1].';
COMMENT ON COLUMN activations."values" IS 'Mean over the positions of each of the first traces.n_values samples.';
COMMENT ON COLUMN activations.n_positions IS 'Positions of a sample, the most of any; 1 for a unit with one value per sample. NULL in traces from before version 3 of the schema: there, each sample is one value, its mean over positions, and all statistics are of those means.';
COMMENT ON COLUMN activations.values_abs IS 'Mean absolute value over the positions of each of those samples; NULL where n_positions is 1 (it is the absolute value) or NULL.';
COMMENT ON COLUMN activations.values_max IS 'Largest value over the positions of each of those samples; NULL where n_positions is 1 (it is the value) or NULL.';
