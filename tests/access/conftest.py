"""Processes under rights of their own are tried against one Redis, the newest."""

from tests.newest_redis import redis_binary, redis_server

__all__ = ["redis_binary", "redis_server"]
