"""Certificates, callers and sockets: who is let in, and to what."""
