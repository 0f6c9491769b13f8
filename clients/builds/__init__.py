"""How each client is built, tested, packed and installed into a project that has nothing else."""
