"""Effects: the driver, Ray, Parquet, DuckDB, the terminal, the hub server."""
