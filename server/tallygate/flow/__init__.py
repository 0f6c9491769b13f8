"""The verbs, in the order data meets them: admit, ingest, relay, and the loop that runs them."""
