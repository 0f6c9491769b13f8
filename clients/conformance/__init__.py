"""One set of cases that every client goes through, against a real sidecar behind faults."""
