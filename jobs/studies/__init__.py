"""Validation experiments: what theory and published figures say, against what this code measures."""
