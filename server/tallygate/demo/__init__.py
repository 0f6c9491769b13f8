"""What `tallygate dev` and `tallygate demo` start with: a catalog, and a sample of a real log."""
