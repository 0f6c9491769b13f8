// A gRPC server of this process that speaks the protos, and answers as a test says.
//
// It stands for the sidecar where a test is about what the client sends and does with answers. The
// conformance cases hold the client to a real one.

import { Metadata, Server, ServerCredentials } from "@grpc/grpc-js";
import { QuotaServiceService, UsageServiceService } from "@tallygate/client/proto";

/** Start one; `answers[method](request, call)` returns a reply or throws a `refusal`. */
export async function fakeService(answers = {}) {
  const calls = [];
  const server = new Server();
  const handlersOf = (definition) =>
    Object.fromEntries(
      Object.entries(definition).map(([name, method]) => [
        name,
        method.responseStream
          ? (call) => answers[name](call.request, call)
          : (call, reply) => {
              calls.push({ name, request: call.request, metadata: call.metadata });
              Promise.resolve()
                .then(() => answers[name](call.request, call))
                .then(
                  (answer) => reply(null, answer),
                  (error) => reply(error),
                );
            },
      ]),
    );
  server.addService(QuotaServiceService, handlersOf(QuotaServiceService));
  server.addService(UsageServiceService, handlersOf(UsageServiceService));
  const port = await bind(server, "127.0.0.1:0");
  return {
    target: `127.0.0.1:${port}`,
    answers,
    calls,
    stop: () => server.forceShutdown(),
  };
}

export function bind(server, address, credentials = ServerCredentials.createInsecure()) {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) =>
      error ? reject(error) : resolve(port),
    );
  });
}

/** What a method throws to end with a status. */
export function refusal(code, details = "no", trailers = {}) {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(trailers)) {
    metadata.set(name, value);
  }
  return { code, details, metadata };
}

/** A reply that grants, with what a test says otherwise. */
export function granted(more = {}) {
  const unset = { limits: [], refusedBy: "", replayed: false, durability: 2, eventIds: [] };
  return { allowed: true, degraded: false, ...unset, ...more };
}

/** A reply to a list that accepts all of it, under its own ids. */
export function accepted({ requests }) {
  const told = { replayed: false, durability: 3, degraded: false };
  return { results: requests.map(({ eventId }) => ({ response: { eventId, ...told } })) };
}
