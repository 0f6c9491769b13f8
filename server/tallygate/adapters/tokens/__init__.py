"""Bearer tokens: signed JSON (JWT), and the sets of keys that are trusted for them."""
