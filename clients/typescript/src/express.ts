/**
 * Express middleware that meters requests.
 *
 * Guarantees what docs/middleware.md says of every middleware.
 *
 * @packageDocumentation
 */

import type { Request, RequestHandler } from "express";
import type { Charge } from "./metering/charge.js";
import { checkOptions, type MeterOptions, meter } from "./metering/meter.js";

export type { Charge } from "./metering/charge.js";
export type { FieldOptions } from "./metering/fields.js";
export type { MeterOptions } from "./metering/meter.js";
export type { Problem } from "./metering/problems.js";

declare global {
  // eslint-disable-next-line @typescript-eslint/no-namespace -- Express' own types are extended so.
  namespace Express {
    interface Request {
      /** What this request is charged; undefined where it passes unmetered. */
      tallygate?: Charge;
    }
  }
}

/**
 * Return middleware that charges requests: put it behind authentication, and before routes.
 *
 * `app.use(tallygate({ client, tenant: "x-tenant", cost: { requests: 1 } }))`
 */
export function tallygate(options: MeterOptions<Request>): RequestHandler {
  checkOptions(options);
  return (request, response, next) => {
    meter(options, request, response).then((verdict) => {
      switch (verdict.kind) {
        case "pass":
          next();
          break;
        case "serve":
          request.tallygate = verdict.charge;
          next();
          break;
        case "answer": {
          const { status, headers, body } = verdict.answer;
          response.writeHead(status, Object.fromEntries(headers));
          response.end(body);
        }
      }
    }, next);
  };
}
