"""Generated stubs of `tallygate.envoy.v1`: do not edit."""
