"""Settings: their precedence, their faults and their secrets."""
