"""Puts processes together: the only package that names concrete adapters."""
