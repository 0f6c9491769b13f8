"""The installed command is tried against one Redis.

What `dev` and `demo` start is the bundled one, so that both are met.
"""

from tests.newest_redis import redis_binary, redis_server

__all__ = ["redis_binary", "redis_server"]
