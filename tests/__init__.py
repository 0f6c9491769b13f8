"""The tests, by what they are about. `servers.py` and `conftest.py` offer real servers to all."""
