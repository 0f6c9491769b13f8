"""Certificates: made and read with `cryptography`, and pairs of files that change."""
