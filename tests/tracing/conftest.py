"""What is traced is the same whichever Redis it is: one is enough."""

from tests.newest_redis import redis_binary, redis_server

__all__ = ["redis_binary", "redis_server"]
