"""The installed command, from outside: real processes, real servers, real crashes."""
