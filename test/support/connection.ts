import type { Connection } from "../../src/drivers/driver.ts";

/** The connection that a URL of a test database names. */
export function connectionOfUrl(href: string): Connection {
  const url = new URL(href);
  return {
    engine: "postgres",
    host: url.hostname,
    port: Number(url.port),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: decodeURIComponent(url.pathname.slice(1)),
    tls: "off",
  };
}
