"""Held-out text, and how many bits per byte models need for it. No search ever sees it."""
