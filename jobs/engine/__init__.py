"""Runs a scan: the ledger decides, executors work, the driver joins them."""
