"""One suite per port, which the fake and the real adapters pass alike."""
