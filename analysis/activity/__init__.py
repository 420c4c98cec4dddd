"""Whose activity counts: what a trace holds of each unit, and the rules that call a unit active."""
