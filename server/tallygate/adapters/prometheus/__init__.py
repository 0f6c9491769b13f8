"""The adapter to prometheus-client.

Owns every metric's name and meaning. Refuses to know how they are served.
"""
