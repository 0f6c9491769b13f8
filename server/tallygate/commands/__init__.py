"""The bodies of the command line's verbs: each speaks gRPC to running servers, or wires its own."""
