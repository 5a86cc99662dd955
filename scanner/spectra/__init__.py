"""Matrices -> eigenvalues -> fits, without I/O."""
