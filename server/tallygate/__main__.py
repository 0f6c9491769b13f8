"""`python -m tallygate`: the command line. Guarantees and refuses what `cli` does."""

from tallygate.cli import main

main()
