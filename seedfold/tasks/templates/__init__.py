"""Rewards that `seedfold new-task` writes into a user's folder as reward.py, as they are."""
