"""What operators do on a bad day, done: disasters rehearsed, and game days."""
