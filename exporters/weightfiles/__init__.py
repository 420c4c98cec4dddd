"""Reading weights out of files without running anything from them, and wiring them into a graph."""
