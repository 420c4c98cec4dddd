-- Schema of a store, version 4. Column comments are the source of docs/schema.md.
-- Ids are INTEGER and count from 0 within the store (graphs, blocks, traces, runs) or within a graph (layers, units).
-- There are no foreign keys or indexes: the writer keeps the references, and bulk loads stay fast.

CREATE TABLE store_info (
    application VARCHAR NOT NULL,
    schema_version INTEGER NOT NULL,
    tool_version VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE store_info IS 'One row that says what the file is.';
COMMENT ON COLUMN store_info.application IS 'Always "emergraph".';
COMMENT ON COLUMN store_info.schema_version IS 'Version of this schema; older stores are migrated when they are opened for writing.';
COMMENT ON COLUMN store_info.tool_version IS 'Version of emergraph that made the file.';
COMMENT ON COLUMN store_info.created_at IS 'UTC.';

CREATE TABLE graphs (
    id INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    sha256 VARCHAR NOT NULL,
    format VARCHAR NOT NULL,
    producer VARCHAR NOT NULL,
    wiring VARCHAR NOT NULL,
    parent INTEGER,
    step BIGINT,
    settings VARCHAR NOT NULL,
    branches VARCHAR[] NOT NULL,
    warnings VARCHAR[] NOT NULL,
    n_layers INTEGER NOT NULL,
    n_units INTEGER NOT NULL,
    n_neurons INTEGER NOT NULL,
    n_blocks INTEGER NOT NULL,
    n_edges BIGINT NOT NULL,
    n_parameters BIGINT NOT NULL,
    n_parameters_understood BIGINT NOT NULL,
    n_operations INTEGER NOT NULL,
    n_operations_understood INTEGER NOT NULL,
    tool_version VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE graphs IS 'One row per exported graph: a model, a checkpoint or a pruned variant.';
COMMENT ON COLUMN graphs.id IS 'Id within the store; the newest graph has the highest.';
COMMENT ON COLUMN graphs.name IS 'Unique within the store.';
COMMENT ON COLUMN graphs.source IS 'File name of the model, without folders; never opened by the tool.';
COMMENT ON COLUMN graphs.sha256 IS 'SHA-256 of the model file, hexadecimal.';
COMMENT ON COLUMN graphs.format IS 'What the model was read from: onnx, module, state_dict, safetensors, ...';
COMMENT ON COLUMN graphs.producer IS 'Program that wrote the model file, as the file says.';
COMMENT ON COLUMN graphs.wiring IS 'How layers were joined: traced, declared, inferred or none.';
COMMENT ON COLUMN graphs.parent IS 'Graph that this one was derived from (pruned variant, next checkpoint); NULL for none.';
COMMENT ON COLUMN graphs.step IS 'Training step of a snapshot; NULL for none.';
COMMENT ON COLUMN graphs.settings IS 'What decided the trace (input shapes and values, options), as JSON.';
COMMENT ON COLUMN graphs.branches IS 'Branches of If operations that were followed, for example "If_0:then".';
COMMENT ON COLUMN graphs.warnings IS 'What the exporter wants a reader to know.';
COMMENT ON COLUMN graphs.n_layers IS 'Layers.';
COMMENT ON COLUMN graphs.n_units IS 'Units, neurons and structural ones together.';
COMMENT ON COLUMN graphs.n_neurons IS 'Units that are neurons.';
COMMENT ON COLUMN graphs.n_blocks IS 'Blocks of edges.';
COMMENT ON COLUMN graphs.n_edges IS 'Edges of all kinds.';
COMMENT ON COLUMN graphs.n_parameters IS 'Parameters of the model, each tensor counted once.';
COMMENT ON COLUMN graphs.n_parameters_understood IS 'Parameters whose effect the tracer knows.';
COMMENT ON COLUMN graphs.n_operations IS 'Operations of the model.';
COMMENT ON COLUMN graphs.n_operations_understood IS 'Operations that are not opaque.';
COMMENT ON COLUMN graphs.tool_version IS 'Version of emergraph that exported the graph.';
COMMENT ON COLUMN graphs.created_at IS 'UTC.';

CREATE TABLE layers (
    graph INTEGER NOT NULL,
    id INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    op VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    depth INTEGER NOT NULL,
    first_unit INTEGER NOT NULL,
    n_units INTEGER NOT NULL,
    n_params BIGINT NOT NULL,
    n_zeros BIGINT NOT NULL,
    dtype VARCHAR NOT NULL,
    activation_tensor VARCHAR,
    activation_axes INTEGER[],
    split_by VARCHAR
);
COMMENT ON TABLE layers IS 'One row per layer: a contiguous range of units that one operation (or input) produces.';
COMMENT ON COLUMN layers.graph IS 'graphs.id.';
COMMENT ON COLUMN layers.id IS 'Id within the graph, in topological order: edges lead to higher ids, except recurrent and norm edges.';
COMMENT ON COLUMN layers.name IS 'Unique within the graph.';
COMMENT ON COLUMN layers.op IS 'ONNX operation type, or "Input".';
COMMENT ON COLUMN layers.kind IS 'What the units are. Neurons: input, embedding, dense, conv, rnn_gate, rnn_cell, rnn_hidden. Structural: junction, gate, score, context, reduction, hub, opaque.';
COMMENT ON COLUMN layers.depth IS 'Longest path of layers from an input, in layers; 0 for inputs.';
COMMENT ON COLUMN layers.first_unit IS 'Id of the first unit; the others follow.';
COMMENT ON COLUMN layers.n_units IS 'Units.';
COMMENT ON COLUMN layers.n_params IS 'Parameters of the weight tensors that lead into the layer, with biases, scales and shifts.';
COMMENT ON COLUMN layers.n_zeros IS 'Exact zeros among them.';
COMMENT ON COLUMN layers.dtype IS 'Element type of the weights in the model file, for example float32 or int8; empty without weights.';
COMMENT ON COLUMN layers.activation_tensor IS 'Tensor of the model that holds the activations of the units; NULL when none does.';
COMMENT ON COLUMN layers.activation_axes IS 'Axes of that tensor that give the position of a unit in the layer when raveled in C order, in the order given.';
COMMENT ON COLUMN layers.split_by IS 'Why the layer has more units than its weight has outputs: weights contract over positions; positions carry distinct labels into a pointwise convolution; a flattened image; unrolled steps. NULL when it has not, and in graphs that were exported before version 2 of the schema.';

CREATE TABLE units (
    graph INTEGER NOT NULL,
    id INTEGER NOT NULL,
    layer INTEGER NOT NULL,
    position INTEGER NOT NULL,
    role VARCHAR NOT NULL,
    neuron BOOLEAN NOT NULL,
    bias DOUBLE,
    scale DOUBLE,
    shift DOUBLE,
    activation VARCHAR
);
COMMENT ON TABLE units IS 'One row per unit.';
COMMENT ON COLUMN units.graph IS 'graphs.id.';
COMMENT ON COLUMN units.id IS 'Id within the graph, from 0.';
COMMENT ON COLUMN units.layer IS 'layers.id.';
COMMENT ON COLUMN units.position IS 'Position within the layer, from 0.';
COMMENT ON COLUMN units.role IS 'input, hidden or output.';
COMMENT ON COLUMN units.neuron IS 'True for neurons, false for structural units (junctions, scores, hubs, ...).';
COMMENT ON COLUMN units.bias IS 'Bias added to the unit; NULL when it has none or it is not known.';
COMMENT ON COLUMN units.scale IS 'Product of the element-wise factors applied to the unit (batch norm, layer-norm gamma, constants); NULL for none.';
COMMENT ON COLUMN units.shift IS 'Sum of the element-wise terms applied to the unit; NULL for none.';
COMMENT ON COLUMN units.activation IS 'Nonlinearity applied to the unit, for example Relu; NULL for linear.';

CREATE TABLE blocks (
    id INTEGER NOT NULL,
    graph INTEGER NOT NULL,
    number INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    op VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    src_layer INTEGER,
    src_layers INTEGER[] NOT NULL,
    src_layer_starts INTEGER[] NOT NULL,
    tensor VARCHAR,
    shared_with INTEGER,
    note VARCHAR,
    n_edges BIGINT NOT NULL,
    n_src INTEGER NOT NULL,
    n_dst INTEGER NOT NULL,
    dense BOOLEAN NOT NULL,
    has_kernels BOOLEAN NOT NULL,
    src_units INTEGER[],
    dst_units INTEGER[],
    place_offset BIGINT,
    place_steps BIGINT[],
    n_zeros BIGINT,
    n_negative BIGINT,
    n_nonfinite BIGINT,
    l1 DOUBLE,
    l2 DOUBLE,
    max_abs DOUBLE
);
COMMENT ON TABLE blocks IS 'One row per block: one use of a weight tensor, or one structural operation. All edges of a block have one kind and lead into one layer.';
COMMENT ON COLUMN blocks.id IS 'Id within the store; connections and kernels refer to it.';
COMMENT ON COLUMN blocks.graph IS 'graphs.id.';
COMMENT ON COLUMN blocks.number IS 'Number within the graph, as the exporter counted.';
COMMENT ON COLUMN blocks.name IS 'Name of the operation.';
COMMENT ON COLUMN blocks.op IS 'Operation type.';
COMMENT ON COLUMN blocks.kind IS 'Kind of the edges: weight, recurrent, identity, gate, attention, norm or opaque.';
COMMENT ON COLUMN blocks.layer IS 'Target layer: layers.id.';
COMMENT ON COLUMN blocks.src_layer IS 'Source layer: layers.id; NULL when the sources lie in several layers.';
COMMENT ON COLUMN blocks.src_layers IS 'All source layers, by first unit.';
COMMENT ON COLUMN blocks.src_layer_starts IS 'First unit of each layer in src_layers.';
COMMENT ON COLUMN blocks.tensor IS 'Parameter tensor behind the edges: tensors.name; NULL for structural blocks.';
COMMENT ON COLUMN blocks.shared_with IS 'First block of the graph that uses the same tensor: blocks.id; NULL for none.';
COMMENT ON COLUMN blocks.note IS 'What a reader should know, for example "axis=token".';
COMMENT ON COLUMN blocks.n_edges IS 'Edges.';
COMMENT ON COLUMN blocks.n_src IS 'Rows of the matrix; for a block without a matrix, distinct sources.';
COMMENT ON COLUMN blocks.n_dst IS 'Columns of the matrix; for a block without a matrix, distinct targets.';
COMMENT ON COLUMN blocks.dense IS 'True when all n_src * n_dst pairs are edges.';
COMMENT ON COLUMN blocks.has_kernels IS 'True when the edges stand for several parameters and are in kernels instead of connections.';
COMMENT ON COLUMN blocks.src_units IS 'units.id of the rows in matrix order; NULL for a block without a matrix that is not dense.';
COMMENT ON COLUMN blocks.dst_units IS 'units.id of the columns in matrix order; NULL for a block without a matrix that is not dense.';
COMMENT ON COLUMN blocks.place_offset IS 'Of a block in place, whose edges are not rows but stay in the model file: element of the tensor, in C order, that is the first entry of the matrix; NULL for a block whose edges are rows.';
COMMENT ON COLUMN blocks.place_steps IS 'Of a block in place: elements of the tensor from one row of the matrix to the next, and from one column to the next; NULL otherwise.';
COMMENT ON COLUMN blocks.n_zeros IS 'Of a block in place: entries of the matrix that are exactly zero, and so no edges; NULL otherwise.';
COMMENT ON COLUMN blocks.n_negative IS 'Of a block in place: edges with a weight below zero; NULL otherwise.';
COMMENT ON COLUMN blocks.n_nonfinite IS 'Of a block in place: edges whose weight is NaN or infinite; NULL otherwise.';
COMMENT ON COLUMN blocks.l1 IS 'Of a block in place: sum of the absolute finite weights; NULL otherwise.';
COMMENT ON COLUMN blocks.l2 IS 'Of a block in place: square root of the sum of squares of the finite weights; NULL otherwise.';
COMMENT ON COLUMN blocks.max_abs IS 'Of a block in place: largest absolute finite weight; NULL otherwise.';

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

CREATE TABLE connections (
    block INTEGER NOT NULL,
    src INTEGER NOT NULL,
    dst INTEGER NOT NULL,
    weight FLOAT
);
COMMENT ON TABLE connections IS 'One row per edge that stands for at most one parameter, stored by (block, src, dst). Query the view edges instead.';
COMMENT ON COLUMN connections.block IS 'blocks.id.';
COMMENT ON COLUMN connections.src IS 'Source unit: units.id.';
COMMENT ON COLUMN connections.dst IS 'Target unit: units.id.';
COMMENT ON COLUMN connections.weight IS 'The parameter; NULL where no parameter carries the influence.';

CREATE TABLE kernels (
    block INTEGER NOT NULL,
    src INTEGER NOT NULL,
    dst INTEGER NOT NULL,
    weight FLOAT,
    l1 DOUBLE NOT NULL,
    l2 DOUBLE NOT NULL,
    max_abs DOUBLE NOT NULL,
    n_params INTEGER NOT NULL
);
COMMENT ON TABLE kernels IS 'One row per edge that stands for several parameters, stored by (block, src, dst); these edges are not in connections. Query the view edges instead.';
COMMENT ON COLUMN kernels.block IS 'blocks.id.';
COMMENT ON COLUMN kernels.src IS 'Source unit: units.id.';
COMMENT ON COLUMN kernels.dst IS 'Target unit: units.id.';
COMMENT ON COLUMN kernels.weight IS 'Sum of the parameters (the gain at frequency zero).';
COMMENT ON COLUMN kernels.l1 IS 'Sum of their absolute values.';
COMMENT ON COLUMN kernels.l2 IS 'Square root of the sum of their squares.';
COMMENT ON COLUMN kernels.max_abs IS 'Largest absolute value.';
COMMENT ON COLUMN kernels.n_params IS 'Non-zero parameters, at least 1.';

CREATE TABLE tensors (
    graph INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    dtype VARCHAR NOT NULL,
    shape BIGINT[] NOT NULL,
    n_params BIGINT NOT NULL,
    n_zeros BIGINT NOT NULL,
    n_nonfinite BIGINT NOT NULL,
    understood BOOLEAN NOT NULL,
    sha256 VARCHAR,
    block INTEGER,
    block_transposed BOOLEAN NOT NULL,
    zero_signs BLOB,
    shard VARCHAR,
    shard_offset BIGINT
);
COMMENT ON TABLE tensors IS 'One row per parameter tensor of the model. Its values are in tensor_parts, or are the matrix of a block, or stay in the model file.';
COMMENT ON COLUMN tensors.graph IS 'graphs.id.';
COMMENT ON COLUMN tensors.name IS 'Unique within the graph.';
COMMENT ON COLUMN tensors.role IS 'weight, bias, scale, shift, embedding, quantization, buffer (of a module, no parameter of it) or other.';
COMMENT ON COLUMN tensors.dtype IS 'Element type by its numpy or ml_dtypes name.';
COMMENT ON COLUMN tensors.shape IS 'Dimensions.';
COMMENT ON COLUMN tensors.n_params IS 'Parameters.';
COMMENT ON COLUMN tensors.n_zeros IS 'Exact zeros; for quantized tensors, values at the zero point.';
COMMENT ON COLUMN tensors.n_nonfinite IS 'NaN and infinite values.';
COMMENT ON COLUMN tensors.understood IS 'Whether the tracer knows what the parameters do.';
COMMENT ON COLUMN tensors.sha256 IS 'SHA-256 of the little-endian C-order bytes, hexadecimal; NULL when not computed.';
COMMENT ON COLUMN tensors.block IS 'Block whose matrix is the tensor: blocks.id; NULL when the values are in tensor_parts or in the model file.';
COMMENT ON COLUMN tensors.block_transposed IS 'True when the tensor is (targets, sources) of that block, false for (sources, targets).';
COMMENT ON COLUMN tensors.zero_signs IS 'Sign bits of the zeros of the matrix, row by row, packed eight to a byte, first in the highest bit; NULL when no zero is negative.';
COMMENT ON COLUMN tensors.shard IS 'Of a tensor whose values stay in the model file: file name, without folders; never opened by the tool. NULL when the store holds the values.';
COMMENT ON COLUMN tensors.shard_offset IS 'First byte of the values in that file; NULL otherwise.';

CREATE TABLE tensor_parts (
    graph INTEGER NOT NULL,
    tensor VARCHAR NOT NULL,
    part INTEGER NOT NULL,
    data BLOB NOT NULL
);
COMMENT ON TABLE tensor_parts IS 'Raw values of tensors that edges do not hold, in pieces, in order.';
COMMENT ON COLUMN tensor_parts.graph IS 'graphs.id.';
COMMENT ON COLUMN tensor_parts.tensor IS 'tensors.name.';
COMMENT ON COLUMN tensor_parts.part IS 'Position of the piece, from 0.';
COMMENT ON COLUMN tensor_parts.data IS 'Little-endian C-order bytes.';

CREATE TABLE operations (
    graph INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    op VARCHAR NOT NULL,
    domain VARCHAR NOT NULL,
    traced_as VARCHAR NOT NULL,
    reason VARCHAR,
    n_params BIGINT NOT NULL
);
COMMENT ON TABLE operations IS 'One row per operation of the model, as the tracer met it.';
COMMENT ON COLUMN operations.graph IS 'graphs.id.';
COMMENT ON COLUMN operations.position IS 'Position in the order of execution, from 0.';
COMMENT ON COLUMN operations.name IS 'Name in the model.';
COMMENT ON COLUMN operations.op IS 'Operation type.';
COMMENT ON COLUMN operations.domain IS 'Domain of the operation type; empty for standard ONNX.';
COMMENT ON COLUMN operations.traced_as IS 'What the tracer did: constant, moved, elementwise, joined, contracted, attended, reduced, normalised, embedded, recurrent, control or opaque.';
COMMENT ON COLUMN operations.reason IS 'Why it is opaque, or what a reader should know.';
COMMENT ON COLUMN operations.n_params IS 'Parameters that the operation reads.';

CREATE TABLE traces (
    id INTEGER NOT NULL,
    graph INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    sha256 VARCHAR,
    seed BIGINT,
    n_samples BIGINT NOT NULL,
    n_values BIGINT NOT NULL,
    settings VARCHAR NOT NULL,
    tool_version VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE traces IS 'One row per activation trace: the activations of units on a set of inputs.';
COMMENT ON COLUMN traces.id IS 'Id within the store; the newest has the highest.';
COMMENT ON COLUMN traces.graph IS 'graphs.id.';
COMMENT ON COLUMN traces.name IS 'Unique within the graph.';
COMMENT ON COLUMN traces.kind IS 'inputs (the model ran on given inputs), random (on random inputs) or imported (recorded elsewhere).';
COMMENT ON COLUMN traces.source IS 'File name of the inputs or recordings, without folders; empty for none; never opened by the tool.';
COMMENT ON COLUMN traces.sha256 IS 'SHA-256 of that file, hexadecimal; NULL for none.';
COMMENT ON COLUMN traces.seed IS 'Seed of random inputs; NULL for none.';
COMMENT ON COLUMN traces.n_samples IS 'Samples that the statistics are over.';
COMMENT ON COLUMN traces.n_values IS 'Samples whose values are kept in activations.values, the first ones.';
COMMENT ON COLUMN traces.settings IS 'How the trace was made, as JSON.';
COMMENT ON COLUMN traces.tool_version IS 'Version of emergraph that made the trace.';
COMMENT ON COLUMN traces.created_at IS 'UTC.';

CREATE TABLE activations (
    trace INTEGER NOT NULL,
    unit INTEGER NOT NULL,
    mean DOUBLE,
    mean_abs DOUBLE,
    rms DOUBLE,
    std DOUBLE,
    min DOUBLE,
    max DOUBLE,
    share_positive DOUBLE,
    n BIGINT NOT NULL,
    "values" FLOAT[],
    n_positions BIGINT,
    values_abs FLOAT[],
    values_max FLOAT[]
);
COMMENT ON TABLE activations IS 'One row per unit within a trace: statistics over all samples and all positions (pixels, time steps, tokens) that carry the unit.';
COMMENT ON COLUMN activations.trace IS 'traces.id.';
COMMENT ON COLUMN activations.unit IS 'units.id.';
COMMENT ON COLUMN activations.mean IS 'Mean over samples and positions, in the units of the activation.';
COMMENT ON COLUMN activations.mean_abs IS 'Mean of the absolute values.';
COMMENT ON COLUMN activations.rms IS 'Root of the mean of the squares.';
COMMENT ON COLUMN activations.std IS 'Standard deviation over samples and positions (divisor n * n_positions).';
COMMENT ON COLUMN activations.min IS 'Smallest value.';
COMMENT ON COLUMN activations.max IS 'Largest value.';
COMMENT ON COLUMN activations.share_positive IS 'Share of values above 0, in [0, 1].';
COMMENT ON COLUMN activations.n IS 'Samples.';
COMMENT ON COLUMN activations."values" IS 'Mean over the positions of each of the first traces.n_values samples.';
COMMENT ON COLUMN activations.n_positions IS 'Positions of a sample, the most of any; 1 for a unit with one value per sample. NULL in traces from before version 3 of the schema: there, each sample is one value, its mean over positions, and all statistics are of those means.';
COMMENT ON COLUMN activations.values_abs IS 'Mean absolute value over the positions of each of those samples; NULL where n_positions is 1 (it is the absolute value) or NULL.';
COMMENT ON COLUMN activations.values_max IS 'Largest value over the positions of each of those samples; NULL where n_positions is 1 (it is the value) or NULL.';

CREATE TABLE metrics (
    graph INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    "value" DOUBLE
);
COMMENT ON TABLE metrics IS 'One row per number that somebody recorded about a graph, such as its loss or accuracy.';
COMMENT ON COLUMN metrics.graph IS 'graphs.id.';
COMMENT ON COLUMN metrics.name IS 'What was measured, for example accuracy; unique within the graph.';
COMMENT ON COLUMN metrics."value" IS 'In the units of the metric.';

CREATE TABLE runs (
    id INTEGER NOT NULL,
    graph INTEGER,
    command VARCHAR NOT NULL,
    parameters VARCHAR NOT NULL,
    seed BIGINT,
    duration DOUBLE,
    result_tables VARCHAR[] NOT NULL,
    tool_version VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE runs IS 'One row per run of an analysis. Its results are the rows of its result tables with run = id.';
COMMENT ON COLUMN runs.id IS 'Id within the store; the newest has the highest.';
COMMENT ON COLUMN runs.graph IS 'graphs.id; NULL when the analysis is not about one graph.';
COMMENT ON COLUMN runs.command IS 'Command that ran, for example emergence.';
COMMENT ON COLUMN runs.parameters IS 'All parameters, as JSON.';
COMMENT ON COLUMN runs.seed IS 'Seed of random numbers; NULL for none.';
COMMENT ON COLUMN runs.duration IS 'Wall clock, in seconds; NULL when not measured.';
COMMENT ON COLUMN runs.result_tables IS 'Tables that hold the results.';
COMMENT ON COLUMN runs.tool_version IS 'Version of emergraph that ran it.';
COMMENT ON COLUMN runs.created_at IS 'UTC, at the end of the run.';

CREATE VIEW edges AS
SELECT
    b.graph,
    b.layer,
    coalesce(
        b.src_layer,
        b.src_layers[len(list_filter(b.src_layer_starts, lambda start: start <= c.src))]
    ) AS src_layer,
    b.kind,
    c.block,
    c.src,
    c.dst,
    c.weight,
    c.l1,
    c.l2,
    c.max_abs,
    c.n_params,
    b.tensor
FROM (
    SELECT
        block, src, dst, weight,
        abs(weight)::DOUBLE AS l1, abs(weight)::DOUBLE AS l2, abs(weight)::DOUBLE AS max_abs, 1 AS n_params
    FROM connections
    UNION ALL
    SELECT block, src, dst, weight, l1, l2, max_abs, n_params FROM kernels
) AS c
JOIN blocks AS b ON b.id = c.block;
COMMENT ON VIEW edges IS 'One row per edge, with its graph, layers and kind. Edges of blocks in place are in it when the model file is given (--model).';
COMMENT ON COLUMN edges.graph IS 'graphs.id.';
COMMENT ON COLUMN edges.layer IS 'Target layer: layers.id.';
COMMENT ON COLUMN edges.src_layer IS 'Source layer: layers.id.';
COMMENT ON COLUMN edges.kind IS 'What carries the influence: weight, recurrent, identity, gate, attention, norm or opaque.';
COMMENT ON COLUMN edges.block IS 'blocks.id.';
COMMENT ON COLUMN edges.src IS 'Source unit: units.id.';
COMMENT ON COLUMN edges.dst IS 'Target unit: units.id.';
COMMENT ON COLUMN edges.weight IS 'The parameter, or the sum of the parameters behind the edge; NULL where no parameter carries the influence.';
COMMENT ON COLUMN edges.l1 IS 'Sum of absolute values of the parameters; NULL where weight is.';
COMMENT ON COLUMN edges.l2 IS 'Square root of the sum of squares of the parameters; NULL where weight is.';
COMMENT ON COLUMN edges.max_abs IS 'Largest absolute value of the parameters; NULL where weight is.';
COMMENT ON COLUMN edges.n_params IS 'Non-zero parameters behind the edge, at least 1.';
COMMENT ON COLUMN edges.tensor IS 'Parameter tensor behind the edge: tensors.name; NULL for structural edges.';

CREATE VIEW unit_activations AS
SELECT
    t.graph, u.layer, l.name AS layer_name, a.unit, u.position, u.neuron, t.name AS trace_name,
    a.trace, a.mean, a.mean_abs, a.rms, a.std, a.min, a.max, a.share_positive, a.n
FROM activations AS a
JOIN traces AS t ON t.id = a.trace
JOIN units AS u ON u.graph = t.graph AND u.id = a.unit
JOIN layers AS l ON l.graph = t.graph AND l.id = u.layer;
COMMENT ON VIEW unit_activations IS 'One row per unit within a trace, with its graph and layer.';
COMMENT ON COLUMN unit_activations.graph IS 'graphs.id.';
COMMENT ON COLUMN unit_activations.layer IS 'layers.id.';
COMMENT ON COLUMN unit_activations.layer_name IS 'layers.name.';
COMMENT ON COLUMN unit_activations.unit IS 'units.id.';
COMMENT ON COLUMN unit_activations.position IS 'Position within the layer, from 0.';
COMMENT ON COLUMN unit_activations.neuron IS 'True for neurons, false for structural units.';
COMMENT ON COLUMN unit_activations.trace_name IS 'traces.name.';
COMMENT ON COLUMN unit_activations.trace IS 'traces.id.';
COMMENT ON COLUMN unit_activations.mean IS 'As in activations.';
COMMENT ON COLUMN unit_activations.mean_abs IS 'As in activations.';
COMMENT ON COLUMN unit_activations.rms IS 'As in activations.';
COMMENT ON COLUMN unit_activations.std IS 'As in activations.';
COMMENT ON COLUMN unit_activations.min IS 'As in activations.';
COMMENT ON COLUMN unit_activations.max IS 'As in activations.';
COMMENT ON COLUMN unit_activations.share_positive IS 'As in activations.';
COMMENT ON COLUMN unit_activations.n IS 'As in activations.';

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
