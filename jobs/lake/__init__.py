"""The lake on disk and the questions to it."""
