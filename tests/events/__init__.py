"""Events over HTTP: what senders send, what comes of it, and who may send."""
