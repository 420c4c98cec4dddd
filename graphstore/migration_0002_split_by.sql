-- Layers say why they have more units than their weights have outputs. Graphs from before do not know.
ALTER TABLE layers ADD COLUMN split_by VARCHAR;
COMMENT ON COLUMN layers.split_by IS 'Why the layer has more units than its weight has outputs: weights contract over positions; positions carry distinct labels into a pointwise convolution; a flattened image; unrolled steps. NULL when it has not, and in graphs that were exported before version 2 of the schema.';
COMMENT ON COLUMN layers.activation_axes IS 'Axes of that tensor that give the position of a unit in the layer when raveled in C order, in the order given.';
COMMENT ON COLUMN store_info.schema_version IS 'Version of this schema; older stores are migrated when they are opened for writing.';
COMMENT ON COLUMN tensors.role IS 'weight, bias, scale, shift, embedding, quantization, buffer (of a module, no parameter of it) or other.';
