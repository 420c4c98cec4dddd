"""Reports for people: what a store knows about a graph, section by section, as a page or as data."""
