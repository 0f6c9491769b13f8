"""Generated stubs of the proto package `tallygate.v1`: do not edit."""
