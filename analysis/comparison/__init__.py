"""What differs between two graphs: layers, weights, units, and everything that was measured."""
