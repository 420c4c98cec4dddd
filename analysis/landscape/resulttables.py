"""The result tables of `landscape`, column by column."""

from emergraph.graphstore.results import Column, ResultTable, register

STATISTICS = register(
    ResultTable(
        "landscape",
        "One row per ruggedness statistic of a run, with its interval and null.",
        (
            Column("statistic", "VARCHAR", "Name; docs say what it is."),
            Column("mean", "DOUBLE", "Mean over repetitions; NULL where the statistic does not exist."),
            Column("low", "DOUBLE", "Lower end of the interval; NULL when there is none."),
            Column("high", "DOUBLE", "Upper end of the interval; NULL when there is none."),
            Column("sd", "DOUBLE", "Standard deviation over repetitions."),
            Column("n", "INTEGER", "Repetitions (directions, walks, planes or points) that gave a value."),
            Column("n_undefined", "INTEGER", "Repetitions that gave none."),
            Column("level", "DOUBLE", "Coverage of the interval, in (0, 1)."),
            Column("null_value", "DOUBLE", "Value for a quadratic bowl or for no relation; NULL for none."),
            Column("loss", "VARCHAR", "What the losses compare with what."),
        ),
    )
)
LAYERS = register(
    ResultTable(
        "landscape_layers",
        "One row per weight tensor of a run: how much the loss rises when it alone is moved.",
        (
            Column("tensor", "VARCHAR", "tensors.name."),
            Column("operation", "VARCHAR", "Operation or module that uses it."),
            Column("n_params", "BIGINT", "Parameters."),
            Column("rise", "DOUBLE", "Mean rise of the loss over directions, in units of the loss."),
            Column("low", "DOUBLE", "Lower end of the interval."),
            Column("high", "DOUBLE", "Upper end of the interval."),
            Column("n", "INTEGER", "Directions."),
        ),
    )
)
POINTS = register(
    ResultTable(
        "landscape_points",
        "One row per evaluated point of slices, planes and walks.",
        (
            Column("kind", "VARCHAR", "slice, plane or walk."),
            Column("number", "INTEGER", "Which slice, plane or walk, from 0."),
            Column("x", "DOUBLE", "Slice: position; plane: along the first direction; walk: step."),
            Column("y", "DOUBLE", "Plane: along the second direction; NULL otherwise."),
            Column("loss", "DOUBLE", "Loss; NULL where it is not finite."),
        ),
    )
)
MERGE_TREES = register(
    ResultTable(
        "landscape_trees",
        "One row per node of the merge tree of a plane; a node's edge leads to its parent.",
        (
            Column("plane", "INTEGER", "Which plane, from 0."),
            Column("node", "INTEGER", "Within the plane; minima first, the global one is 0."),
            Column("kind", "VARCHAR", "minimum or saddle."),
            Column("x", "DOUBLE", "Position along the first direction."),
            Column("y", "DOUBLE", "Position along the second direction."),
            Column("loss", "DOUBLE", "Loss."),
            Column("parent", "INTEGER", "Node above it; NULL for the root."),
            Column(
                "persistence",
                "DOUBLE",
                "Loss at the saddle where the minimum dies less its own; NULL for saddles and for minima "
                "that never die.",
            ),
            Column("basin_cells", "INTEGER", "Cells that drain into it; 0 for saddles."),
        ),
    )
)
MASKS = register(
    ResultTable(
        "landscape_masks",
        "One row per mask of the pruning hypercube of a run.",
        (
            Column("state", "INTEGER", "Bit i is 1 where group i is removed."),
            Column("n_removed", "INTEGER", "Groups removed."),
            Column("loss", "DOUBLE", "Loss with these groups set to zero."),
            Column("attractor", "INTEGER", "State that best-improvement descent ends in."),
        ),
    )
)
MASK_GROUPS = register(
    ResultTable(
        "landscape_groups",
        "One row per pair of groups of the pruning hypercube; a group with itself holds its main effect.",
        (
            Column("group_a", "INTEGER", "Bit of the first group."),
            Column("group_b", "INTEGER", "Bit of the second group."),
            Column("name_a", "VARCHAR", "Tensors in the first group."),
            Column("name_b", "VARCHAR", "Tensors in the second group."),
            Column(
                "effect",
                "DOUBLE",
                "Mean change of the loss by removing the group; for a pair, by how much the effect of both "
                "differs from the sum of the two.",
            ),
        ),
    )
)
MASK_OPTIMA = register(
    ResultTable(
        "landscape_lon",
        "One row per edge of the local-optima network of the pruning hypercube.",
        (
            Column("source", "INTEGER", "State of the minimum that is left."),
            Column(
                "target",
                "INTEGER",
                "State of the minimum that is reached; equal to source for a minimum without edges.",
            ),
            Column("weight", "DOUBLE", "Kicks of one or two flips that lead from one to the other."),
            Column("source_loss", "DOUBLE", "Loss at the source."),
            Column("target_loss", "DOUBLE", "Loss at the target."),
        ),
    )
)
