"""How each verb is called: one function a verb, nothing heavy imported until its verb runs."""

from jobs.cli.entry import cli, invoke, main

__all__ = ["cli", "invoke", "main"]
