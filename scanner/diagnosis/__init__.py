"""Numbers -> findings, without I/O."""
