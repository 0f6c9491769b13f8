// What the README of the client for Node.js shows, as one program beside a sidecar.

// [first-call]
import { Client } from "@tallygate/client";

const client = new Client(); // at TALLYGATE_TARGET, else at 127.0.0.1:50051

const decision = await client.checkAndConsume({ tenant: "acme", items: { requests: 1 } });
if (decision.allowed) {
  console.log(`go ahead, ${decision.limits[0].remaining} left`);
} else {
  console.log(`come back in ${decision.retryAfterMs} ms: ${decision.refusedBy}`);
}
// [/first-call]

// [reserve]
const sent = await client.withReservation(
  { tenant: "acme", items: { egress_bytes: 50_000 } },
  async (held) => {
    const bytes = Buffer.byteLength("the response");
    held.set("egress_bytes", bytes);
    return bytes; // what is thrown gives all of it back
  },
);
// [/reserve]
console.log(`sent ${sent} bytes`);

// [buffer]
const buffered = new Client({ buffer: { spoolDir: "spool" } });
buffered.buffer.record({ tenant: "acme", meter: "egress_bytes", amount: 1_200 }); // at once
if (!(await buffered.close(10_000))) {
  console.log("the rest is in the spool, for the next start");
}
// [/buffer]
console.log("delivered");

// [policy]
const lenient = new Client({ onAbsent: "open" });
const passed = await lenient.checkAndConsume({ tenant: "acme", items: { requests: 1 } });
if (passed.local) {
  console.log("no sidecar: let pass, and counted as localOpen");
}
// [/policy]
console.log("counted", lenient.stats().localOpen);
await lenient.close();

// [errors]
import { InvalidRequestError, UnavailableError } from "@tallygate/client";

try {
  await client.checkAndConsume({ tenant: "acme", items: { requests: 0 } });
} catch (error) {
  if (error instanceof InvalidRequestError) {
    console.log(`${error.reason}: ${error.field}`);
  } else if (error instanceof UnavailableError) {
    console.log(`nobody answered; ask again as ${error.operationId}`);
  } else {
    throw error;
  }
}
// [/errors]

// [hooks]
const watched = new Client({
  hooks: { onCall: (method, code, seconds) => console.log(`${method}: ${code}`) },
});
await watched.getQuota({ tenant: "acme" });
// [/hooks]
await watched.close();

/** Connects with TLS, where a target has it. */
export async function secured() {
  // [tls]
  const { readFile } = await import("node:fs/promises");
  const [ca, cert, key] = await Promise.all(["ca.pem", "app.pem", "app.key"].map((f) => readFile(f)));
  const client = new Client({ target: "sidecar.internal:50051", tls: { ca, cert, key } });
  // [/tls]
  return client;
}

await client.close();
