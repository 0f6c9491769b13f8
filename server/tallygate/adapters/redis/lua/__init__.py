"""The Lua scripts, one per file, each with its contract in its header."""
