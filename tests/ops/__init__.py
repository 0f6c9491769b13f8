"""The ops listener, logs, metrics and posture: what an operator sees of the process."""
