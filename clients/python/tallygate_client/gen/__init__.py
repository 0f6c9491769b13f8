"""Generated stubs: do not edit.

`make gen` writes everything below this package from `protos/`; `make gen-check` refuses drift.
"""
