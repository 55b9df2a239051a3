"""Folding a scored population into one recipe: pure functions from populations to proposals, and the gate."""
