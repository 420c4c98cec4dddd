"""What pruning a trained model would do, on its graph: masks over edges and units, never a changed graph."""
