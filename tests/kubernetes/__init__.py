"""The injector against a real API server: `make test-kubernetes`, no part of `make test`."""
