"""The field: other services that count and refuse, run on loopback as their makers ship them."""
