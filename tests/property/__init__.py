"""Property tests: the Lua is held to its specification."""
