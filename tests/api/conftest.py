"""The services are tried against one Redis: which one it is makes no difference at the edge."""

from tests.newest_redis import redis_binary, redis_server

__all__ = ["redis_binary", "redis_server"]
