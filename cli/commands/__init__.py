"""One file per command that no analysis declares: its options, one call of the library, and what is shown."""

COMMANDS = {
    "export": "Trace the units of a model and write its graph into a store.",
    "trace": "Run the model on inputs and keep what each unit of its graph does.",
    "emergence": "Count the paths from inactive to active units (path-count emergence, arXiv 2409.01568).",
    "trajectory": "Follow emergence over training steps: with the change in a metric, and as a reason "
    "to stop.",
    "prune": "Say what pruning would do to sparsity, paths, dead units and emergence, level by level.",
    "influence": "Knock out layers, heads and units, and say what that does to the model's outputs.",
    "circuit": "Find the fewest units that keep a share of a behaviour while all others are replaced.",
    "contributions": "Say what each unit adds to the units behind it on inputs, edge by edge.",
    "percolate": "Add the edges one by one, strongest first, and find the percolation threshold.",
    "concepts": "Find which unseen pairs entity-property data connect, and where they percolate "
    "(arXiv 2408.12578).",
    "transition": "Fit the transition of each training run, and the exponent with which it moves with "
    "|E||K|.",
    "paths": "Find which units reach which: along how many paths, by which ones, and where they can be cut.",
    "topology": "Measure a graph as a network, and the spectra of its weights.",
    "convert": "Write a graph for other tools, or graphs with all of their tables into a lake.",
    "landscape": "Measure how rugged the loss landscape is around a model's own weights; no labels needed.",
    "report": "Write a report about a graph: a self-contained page that loads nothing and runs no script.",
    "explore": "Write a page to walk through a graph, layer by layer and edge by edge; it loads nothing.",
    "diff": "Show what differs between two graphs: layers, weights with sign flips, units, and "
    "stored measures.",
    "lineage": "Find which models are the same, derived from one another, or independent.",
    "plot": "Draw a figure from what the store holds; without a figure, list those that it can draw.",
    "information": "Estimate how much more each block of a model tells about sequences than about single "
    "tokens.",
    "skills": "Skills that emerge one after the other: a solvable model (arXiv 2404.17563).",
    "info": "Show what a graph is, how much of its model is understood, and its layers.",
    "ls": "List the graphs of a store, oldest first.",
    "sql": "Run one SELECT statement on a store or a lake.",
    "rm": "Remove a graph with its traces and runs from a store.",
    "merge": "Copy all graphs of another store, with their traces and runs, into a store.",
    "compact": "Rewrite a store without the space that removed graphs have left in the file.",
    "check": "List what a user of a model file should know; exit with 1 when there is a warning or an error.",
    "audit": "Say what is in a model, what is wrong with it and what may go; exit with 1 at a warning or an "
    "error.",
    "survey": "Audit, export and fingerprint every model file found, and keep what is found in a lake.",
    "help": "Show what a command does; with --all, every command and option of the program.",
    "mcp": "Answer an assistant's questions about stores and models, by the Model Context Protocol.",
    "demo": "Export, trace and analyse two small networks that come with emergraph, ask in SQL, "
    "and write a report.",
}
"""All commands, in the order in which `--help` lists them, with the first sentence of their help texts: a
module is imported when its command is asked for, and the list of all imports none."""

DAILY = {
    "Look at a file": {
        "audit": "what is in a model, what is wrong, what may go",
        "check": "what to know before a model is loaded; runs nothing",
        "report": "a page about a model or a graph, for a colleague",
        "explore": "a page to walk through units and edges",
        "survey": "audit and export every model of a folder",
    },
    "Make a graph": {
        "export": "trace the units of a model into a store",
        "trace": "run the model on inputs: what each unit does",
        "demo": "all of it on two small networks that come along",
    },
    "Ask it": {
        "info": "what the graph is, and its layers",
        "sql": "a query, or a question of --recipe list",
        "prune": "how far weights or units can go, and what breaks",
        "influence": "what the outputs lose without a layer or unit",
        "circuit": "the fewest units that keep a behaviour",
        "paths": "what reaches what, and where to cut it",
        "emergence": "paths from inactive to active units",
        "explore": "a page to walk through the units and edges",
        "plot": "a figure from what the store holds",
    },
    "Compare and track": {
        "diff": "what differs between two models or graphs",
        "lineage": "which models are the same, derived, independent",
        "trajectory": "emergence along a training",
    },
    "Look after a store": {
        "ls": "the graphs of a store",
        "rm": "remove a graph",
        "merge": "copy the graphs of another store into it",
        "compact": "rewrite it without unused space",
        "convert": "write a graph for other tools, or a lake",
    },
}
"""Everyday commands by the question that brings somebody here, each with a line for a narrow terminal."""

RESEARCH = tuple(
    name for name in COMMANDS if name != "help" and not any(name in lines for lines in DAILY.values())
)
"""The others, which `emergraph help --all` describes."""
