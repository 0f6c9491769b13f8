/**
 * A Fastify plugin that meters requests.
 *
 * Guarantees what docs/middleware.md says of every middleware.
 *
 * @packageDocumentation
 */

import type { FastifyInstance, FastifyPluginCallback, FastifyRequest } from "fastify";
import type { Charge } from "./metering/charge.js";
import { checkOptions, type MeterOptions, meter } from "./metering/meter.js";

export type { Charge } from "./metering/charge.js";
export type { FieldOptions } from "./metering/fields.js";
export type { MeterOptions } from "./metering/meter.js";
export type { Problem } from "./metering/problems.js";

/** What a route may set otherwise than the plugin: `false` leaves it unmetered. */
export type RouteMetering = false | Partial<Omit<MeterOptions<FastifyRequest>, "client">>;

declare module "fastify" {
  interface FastifyRequest {
    /** What this request is charged; null where it passes unmetered. */
    tallygate: Charge | null;
  }
  interface FastifyContextConfig {
    /** How this route is metered, where it differs. */
    tallygate?: RouteMetering;
  }
}

const plugin: FastifyPluginCallback<MeterOptions<FastifyRequest>> = (
  app: FastifyInstance,
  options,
  done,
) => {
  checkOptions(options);
  app.decorateRequest("tallygate", null);
  // After `onRequest` and `preParsing`, where requests are authenticated.
  app.addHook("preHandler", async (request, reply) => {
    const route = request.routeOptions.config.tallygate;
    if (route === false) {
      return;
    }
    const verdict = await meter({ ...options, ...route }, request, reply.raw);
    if (verdict.kind === "serve") {
      request.tallygate = verdict.charge;
    } else if (verdict.kind === "answer") {
      const { status, headers, body } = verdict.answer;
      // As bytes: to a string Fastify adds a charset, which JSON does not have.
      return reply.code(status).headers(Object.fromEntries(headers)).send(Buffer.from(body));
    }
  });
  done();
};

/**
 * Meters the routes of the instance it is registered with, those of its plugins included:
 * `app.register(tallygate, { client, tenant: "x-tenant", cost: { requests: 1 } })`. A route sets
 * otherwise by its `config.tallygate`.
 */
export const tallygate = Object.assign(plugin, {
  // As fastify-plugin does: its hooks are for whom it is registered with, not for itself alone.
  [Symbol.for("skip-override")]: true,
  [Symbol.for("fastify.display-name")]: "@tallygate/client",
});
