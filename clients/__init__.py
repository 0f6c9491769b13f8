"""The client libraries, and what holds them to one behaviour."""
