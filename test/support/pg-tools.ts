import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const services = fileURLToPath(new URL("../../.services/bin/", import.meta.url));

/** Finds a client program of PostgreSQL that can talk to a server of this major; undefined where it is not installed. */
export function pgTool(name: "pg_dump" | "pg_restore" | "psql", major: 15 | 18): string | undefined {
  const candidates = [
    `${services}${name}-${major}`,
    `/usr/lib/postgresql/${major}/bin/${name}`,
    `${services}${name}-18`,
  ];
  return candidates.find((path) => existsSync(path));
}
