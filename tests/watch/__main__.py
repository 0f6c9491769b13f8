"""`python -m tests.watch`: write the rules and the dashboards anew."""

from . import made

if __name__ == "__main__":
    made.write()
