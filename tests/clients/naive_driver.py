"""A driver of a client that nobody should write: it tries again by itself, under another id.

`keep` as its argument has it keep the id, as a client has to.
"""

import json
import sys
import uuid
from typing import Any

import grpc

from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc

TRIES = 2
CALL_TIMEOUT_S = 10.0


def main() -> None:
    """Answer what is asked, line by line."""
    stubs: dict[str, quota_pb2_grpc.QuotaServiceStub] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        answer = {"id": asked["id"], "ok": _answer(asked, stubs)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _answer(asked: dict[str, Any], stubs: dict[str, Any]) -> dict[str, Any]:
    match asked["do"]:
        case "hello":
            return {"sdk": "naive/1", "language": "none"}
        case "open":
            stubs[asked["client"]] = quota_pb2_grpc.QuotaServiceStub(
                grpc.insecure_channel(asked["target"], options=[("grpc.enable_retries", 0)])
            )
            return {}
        case "check_and_consume":
            return _charge(stubs[asked["client"]], asked)
    return {}


def _charge(stub: quota_pb2_grpc.QuotaServiceStub, asked: dict[str, Any]) -> dict[str, Any]:
    kept = str(uuid.uuid4())
    for _ in range(TRIES):
        operation_id = kept if sys.argv[1:] == ["keep"] else str(uuid.uuid4())
        request = quota_pb2.CheckAndConsumeRequest(
            tenant_id=asked["tenant"], operation_id=operation_id
        )
        try:
            reply = stub.CheckAndConsume(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError:
            continue
        return {"allowed": reply.allowed, "replayed": reply.replayed}
    return {}


if __name__ == "__main__":
    main()
