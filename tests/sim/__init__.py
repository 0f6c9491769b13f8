"""The simulator: the whole chain in one process and in virtual time, from one integer."""
