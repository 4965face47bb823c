import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { TestProject } from "vitest/node";
import { hasOldest, type AnyPostgres, type PostgresServer, startPostgres } from "./postgres-server.ts";

declare module "vitest" {
  interface ProvidedContext {
    readonly postgres: { readonly 13: string; readonly 15: string; readonly 18: string };
  }
}

/** Builds what tests start as processes, and starts one server of each major for all test files; ROWKEEP_TEST_PG15_URL and …_PG18_URL name running ones instead. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  if (Number(process.versions.node.split(".")[0]) < 24) {
    throw new Error(
      `the tests need Node 24 or newer, not ${process.versions.node}: run npm ci without --ignore-scripts`,
    );
  }
  const started: PostgresServer[] = [];
  const urlOf = async (major: AnyPostgres) => {
    const running = process.env[`ROWKEEP_TEST_PG${major}_URL`];
    if (running) return running;
    const server = await startPostgres(major);
    started.push(server);
    return server.url;
  };
  const [pg15, pg18, pg13] = await Promise.all([urlOf(15), urlOf(18), hasOldest ? urlOf(13) : "", build()]);
  project.provide("postgres", { 13: pg13, 15: pg15, 18: pg18 });
  return async () => {
    for (const server of started) await server[Symbol.asyncDispose]();
  };
}

function build(): Promise<unknown> {
  return promisify(execFile)(process.execPath, [fileURLToPath(new URL("../../scripts/build.mjs", import.meta.url))]);
}
