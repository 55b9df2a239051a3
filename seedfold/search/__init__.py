"""Choosing and scoring a population of recipes."""
