"""Numbers about sound and picture that have names: the descriptor backends' formulas."""
