"""Nouns: what flows and what is stored."""
