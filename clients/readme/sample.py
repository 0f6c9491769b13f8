"""What the README of the Python client shows, as one program beside a sidecar."""

# [first-call]
from tallygate_client import Client

client = Client()  # at TALLYGATE_TARGET, else at 127.0.0.1:50051

decision = client.check_and_consume("acme", {"requests": 1})
if decision.allowed:
    print(f"go ahead, {decision.limits[0].remaining} left")
else:
    print(f"come back in {decision.retry_after} s: {decision.refused_by}")
# [/first-call]

# [reserve]
with client.reserve("acme", {"egress_bytes": 50_000}) as held:
    sent = len("the response".encode())
    held.use({"egress_bytes": sent})
# [/reserve]
print(f"sent {sent} bytes")

# [buffer]
from tallygate_client import BufferOptions

buffered = Client(buffer=BufferOptions(spool_dir="spool"))
buffered.buffer.record("acme", "egress_bytes", 1_200)  # returns at once
if not buffered.close(timeout=10):
    print("the rest is in the spool, for the next start")
# [/buffer]
print("delivered")

# [policy]
lenient = Client(on_absent="open")
decision = lenient.check_and_consume("acme", {"requests": 1})
if decision.local:
    print("no sidecar: let pass, and counted as local_open")
# [/policy]
print("counted", lenient.stats().local_open)
lenient.close()

# [errors]
from tallygate_client import InvalidRequest, Unavailable

try:
    client.check_and_consume("acme", {"requests": 0})
except InvalidRequest as error:
    print(f"{error.reason}: {error.field}")
except Unavailable as error:
    print(f"nobody answered; ask again as {error.operation_id}")
# [/errors]

# [hooks]
from tallygate_client import Hooks


def on_call(method: str, code: str, seconds: float) -> None:
    print(f"{method}: {code}")


watched = Client(hooks=Hooks(on_call=on_call))
watched.quota("acme")
# [/hooks]
watched.close()


def secured() -> Client:
    """Connect with TLS; called where the program is given a target that has it."""
    # [tls]
    from tallygate_client import Tls

    tls = Tls.from_files(ca="ca.pem", certificate="app.pem", key="app.key")
    client = Client("sidecar.internal:50051", tls=tls)
    # [/tls]
    return client


client.close()
