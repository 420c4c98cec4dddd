-- A store of version 1 that is opened for reading stays as it is, and shows the column without values.
CREATE TEMP VIEW layers AS SELECT *, NULL::VARCHAR AS split_by FROM {store}.main.layers;
