// What an app in TypeScript writes, as CommonJS: it is compiled, not run.

import { Client, type Stats } from "@tallygate/client";

import fastify = require("@tallygate/client/fastify");

export function counted(): Stats {
  const options = { target: "unix:///run/tallygate.sock", buffer: { spoolDir: "spool" } };
  return new Client(options).stats();
}

export const plugin = fastify.tallygate;
