"""Bytes -> matrices, without I/O: headers, file selection, roles, units, decoding."""
