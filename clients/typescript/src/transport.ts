/**
 * client ─▶ [ transport ] ──gRPC──▶ sidecar: one channel, one deadline per logical call.
 *
 * Guarantees that a call ends with its deadline or its signal, whichever is first, and that what it
 * ends with is an error of this package. Retries are gRPC's own, by the service config that all
 * Tallygate clients share. Refuses to know what messages mean.
 */

import {
  type ChannelOptions,
  type ClientReadableStream,
  credentials,
  Client as GrpcClient,
  Metadata,
  type MethodDefinition,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { CancelledError, ClosedError, fromStatus, type StatusCode } from "./errors.js";
import type { ClientOptions, TlsOptions } from "./options.js";
import serviceConfig from "./service-config.json";
import { VERSION } from "./version.js";

const DEFAULT_TARGET = "127.0.0.1:50051";
/** The sidecar is on the same host: it is back soon, or not at all. */
const RECONNECT_MIN_MS = 50;
const RECONNECT_MAX_MS = 1000;

/** How one call is made. @internal */
export interface Attempt {
  readonly timeoutMs: number;
  readonly operationId: string;
  readonly signal?: AbortSignal | undefined;
}

/** A method of the service, as generated. @internal */
export type Method<Q, A> = MethodDefinition<Q, A>;

/** The channel to a sidecar. @internal */
export class Transport {
  readonly #grpc: GrpcClient;
  #closed = false;

  constructor(options: ClientOptions) {
    const target = options.target || process.env["TALLYGATE_TARGET"] || DEFAULT_TARGET;
    this.#grpc = new GrpcClient(target, channelCredentials(options.tls), channelOptions(options));
  }

  /** Make a call. Rejects with the error that it ended with. */
  unary<Q, A>(method: Method<Q, A>, request: Q, attempt: Attempt): Promise<A> {
    return this.send(method, method.requestSerialize(request), attempt);
  }

  /** Make a call whose message is encoded already. */
  send<Q, A>(method: Method<Q, A>, encoded: Buffer, attempt: Attempt): Promise<A> {
    const { signal, operationId } = attempt;
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(new ClosedError());
        return;
      }
      if (signal?.aborted) {
        reject(new CancelledError(operationId, signal.reason));
        return;
      }
      const call = this.#grpc.makeUnaryRequest(
        method.path,
        asIs,
        method.responseDeserialize,
        encoded,
        new Metadata(),
        { deadline: Date.now() + attempt.timeoutMs },
        (error, reply) => {
          signal?.removeEventListener("abort", cancel);
          if (error !== null) {
            reject(this.#errorOf(error, operationId, signal));
          } else {
            resolve(reply as A);
          }
        },
      );
      const cancel = () => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  /** Open a stream of answers. It ends with the signal, or by leaving the loop. */
  async *stream<Q, A>(method: Method<Q, A>, request: Q, signal?: AbortSignal): AsyncGenerator<A> {
    if (this.#closed) {
      throw new ClosedError();
    }
    if (signal?.aborted) {
      throw new CancelledError("", signal.reason);
    }
    const call: ClientReadableStream<A> = this.#grpc.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      new Metadata(),
    );
    const cancel = () => call.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      yield* call as AsyncIterable<A>;
    } catch (error) {
      throw this.#errorOf(error as ServiceError, "", signal);
    } finally {
      signal?.removeEventListener("abort", cancel);
      // A stream that its reader has left ends with CANCELLED, which concerns nobody any more.
      call.on("error", () => undefined);
      call.cancel();
    }
  }

  /** End all calls, and the channel. */
  close(): void {
    this.#closed = true;
    this.#grpc.close();
  }

  #errorOf(error: ServiceError, operationId: string, signal: AbortSignal | undefined): Error {
    if (error.code === status.CANCELLED && signal?.aborted) {
      return new CancelledError(operationId, signal.reason);
    }
    return this.#closed ? new ClosedError() : fromStatus(error, operationId);
  }
}

/** The code that a call ended with, for hooks. @internal */
export type { StatusCode };

function asIs(encoded: Buffer): Buffer {
  return encoded;
}

function channelCredentials(tls: TlsOptions | undefined) {
  if (tls === undefined) {
    return credentials.createInsecure();
  }
  return credentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert));
}

function pem(given: string | Buffer | undefined): Buffer | null {
  return given === undefined ? null : Buffer.from(given);
}

function channelOptions(options: ClientOptions): ChannelOptions {
  const name = options.tls?.serverName;
  return {
    "grpc.primary_user_agent": `tallygate-node/${VERSION}`,
    "grpc.service_config": JSON.stringify(serviceConfig),
    "grpc.service_config_disable_resolution": 1,
    "grpc.enable_retries": options.retry === false ? 0 : 1,
    "grpc.initial_reconnect_backoff_ms": RECONNECT_MIN_MS,
    "grpc.max_reconnect_backoff_ms": RECONNECT_MAX_MS,
    // A client has a connection of its own, which ends with it.
    "grpc.use_local_subchannel_pool": 1,
    ...(name === undefined
      ? {}
      : { "grpc.ssl_target_name_override": name, "grpc.default_authority": name }),
    ...options.channelOptions,
  };
}
