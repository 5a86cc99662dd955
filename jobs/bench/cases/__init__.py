"""What is measured: one module a subject, one generator of Results a case."""
