"""Files that rows are exported to: CSV, JSON lines, Parquet."""
