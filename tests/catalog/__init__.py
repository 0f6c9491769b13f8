"""The catalog document, its rules, its file, and what applying it does."""
