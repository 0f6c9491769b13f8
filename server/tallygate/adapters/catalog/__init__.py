"""The catalog as a YAML document and as a compiled snapshot."""
