"""Figures: what is in a store, drawn with altair and rendered without a network."""
