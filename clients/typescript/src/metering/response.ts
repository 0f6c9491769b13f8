/**
 * A response of Node's `http`, watched: its header fields, its bytes, and how it ended.
 *
 * Guarantees that chunks pass on as they come, that fields are set when the head is written, in
 * place of the app's own of these names, and that `ended` is called once. Express and Fastify both
 * answer by such a response. Refuses to know what is charged.
 */

import type { OutgoingHttpHeaders, ServerResponse } from "node:http";

/** How a response ended: handed over, left by the client, or broken off by the app. */
export type Ended = "complete" | "left-before" | "left-within" | "failed";

/** What is asked and told. @internal */
export interface Watcher {
  fields(): [name: string, value: string][];
  ended(end: { how: Ended; bytes: number }): void;
}

type Chunk = string | Uint8Array;
const OURS = /^ratelimit(-policy)?$/i;
/** Codes with which a socket ends whose other side has gone. */
const LEFT = ["ECONNRESET", "EPIPE", "ERR_STREAM_PREMATURE_CLOSE"];

/** Watch a response until it ends. @internal */
export function watchResponse(response: ServerResponse, watcher: Watcher): void {
  let bytes = 0;
  const count = (chunk: unknown, encoding: unknown) => {
    if (typeof chunk === "string") {
      const known = typeof encoding === "string" ? (encoding as BufferEncoding) : "utf8";
      bytes += Buffer.byteLength(chunk, known);
    } else if (chunk instanceof Uint8Array) {
      bytes += chunk.byteLength;
    }
  };
  const writeHead = response.writeHead.bind(response);
  const write = response.write.bind(response);
  const end = response.end.bind(response);
  response.writeHead = (status: number, ...rest: unknown[]) => {
    const fields = watcher.fields();
    for (const [name, value] of fields) {
      response.setHeader(name, value);
    }
    const given = fields.length === 0 ? rest : rest.map(withoutOurs);
    return Reflect.apply(writeHead, response, [status, ...given]) as ServerResponse;
  };
  response.write = ((chunk: Chunk, ...rest: unknown[]) => {
    count(chunk, rest[0]);
    return Reflect.apply(write, response, [chunk, ...rest]) as boolean;
  }) as typeof write;
  response.end = ((...given: unknown[]) => {
    // Node's own `end` does not pass by `write`.
    count(given[0], given[1]);
    return Reflect.apply(end, response, given) as ServerResponse;
  }) as typeof end;
  const done = () => {
    response.off("finish", done).off("close", done);
    watcher.ended({ how: howEnded(response), bytes: hasBody(response) ? bytes : 0 });
  };
  response.on("finish", done).on("close", done);
  if (response.destroyed) {
    // The client left while the decision was awaited: nobody will tell of it again.
    done();
  }
}

function howEnded(response: ServerResponse): Ended {
  if (response.writableFinished) {
    return "complete";
  }
  const { socket } = response.req;
  const left: NodeJS.ErrnoException | null = socket.errored;
  if (response.errored || !(socket.readableEnded || LEFT.includes(left?.code ?? ""))) {
    return "failed";
  }
  return response.headersSent ? "left-within" : "left-before";
}

function hasBody({ req, statusCode }: ServerResponse): boolean {
  return req.method !== "HEAD" && statusCode !== 204 && statusCode !== 304;
}

/** Take our names from headers that the app gives with the status, which would come after ours. */
function withoutOurs(given: unknown): unknown {
  if (Array.isArray(given)) {
    const pairs = given as unknown[];
    return pairs.filter((_, at) => !OURS.test(String(pairs[at - (at % 2)])));
  }
  if (typeof given === "object" && given !== null) {
    return Object.fromEntries(
      Object.entries(given as OutgoingHttpHeaders).filter(([name]) => !OURS.test(name)),
    );
  }
  return given;
}
