import { expect, test } from "vitest";
import type { TableMark, TrustToken } from "../../src/drivers/change-tracker.ts";
import { findDistrust, findRewrite, isSameInstant } from "../../src/plan/check-trust.ts";

const BASE: TrustToken = {
  systemIdentifier: "7300000000000000001",
  databaseOid: "16384",
  databaseXmin: "730",
  timeline: "00000001",
  startedAt: "1763719200.123456",
  major: 18,
  snapshot: "1000:1000:",
  xmin: "1000",
  lsn: "50000",
};
const LATER: TrustToken = { ...BASE, snapshot: "2000:2003:2000", xmin: "2000", lsn: "60000" };

test("believes the row headers of a server whose history went on", () => {
  expect(findDistrust(BASE, LATER)).toBeUndefined();
  expect(findDistrust(BASE, BASE)).toBeUndefined();
});

test.each<[string, Partial<TrustToken>, RegExp]>([
  ["another server", { systemIdentifier: "7300000000000000002" }, /another server/],
  ["another database", { databaseOid: "16385" }, /another database/],
  ["a database that was made again with the same number", { databaseXmin: "1500" }, /made again/],
  ["a server of another major version", { major: 17 }, /major version/],
  ["a server on another timeline", { timeline: "00000002" }, /timeline/],
  ["a server that was restarted", { startedAt: "1763719200.123457" }, /restarted/],
  ["a server whose transactions were set back", { snapshot: "999:2000:", xmin: "999" }, /set back/],
  ["a server whose log was set back", { lsn: "49999" }, /set back/],
  ["numbers of transactions that may mean others", { snapshot: `2000:${1000 + 2 ** 31}:` }, /too many/],
  [
    "numbers that may mean others before all tables are read",
    { snapshot: `2000:${1000 + 2 ** 31 - 2 ** 28}:` },
    /too many/,
  ],
])("believes nothing of %s", (_, change, reason) => {
  expect(findDistrust(BASE, { ...LATER, ...change })).toMatch(reason);
});

test("believes a base that does not tell yet who made its database", () => {
  expect(findDistrust({ ...BASE, databaseXmin: undefined }, LATER)).toBeUndefined();
});

test("compares numbers and not texts, and believes nearly half a circle of transactions", () => {
  expect(findDistrust({ ...BASE, xmin: "999", lsn: "9" }, LATER)).toBeUndefined();
  expect(findDistrust(BASE, { ...LATER, snapshot: `2000:${1000 + 2 ** 31 - 2 ** 28 - 1}:` })).toBeUndefined();
});

test("believes nothing without a token on both sides", () => {
  expect(findDistrust(undefined, LATER)).toMatch(/does not tell/);
  expect(findDistrust(BASE, "the server is a replica")).toBe("the server is a replica");
});

test("takes two snapshots for one instant only when nothing ran at either", () => {
  expect(isSameInstant(BASE, { ...BASE, lsn: "50100" })).toBe(true);
  expect(isSameInstant(BASE, LATER)).toBe(false);
  const running = { ...BASE, snapshot: "1000:1002:1000" };
  expect(isSameInstant(running, running)).toBe(false);
});

test("compares a table only with itself, in its old place and form", () => {
  const mark: TableMark = { oid: "1", filenode: "2", digest: "3" };

  expect(findRewrite(mark, mark)).toBeUndefined();
  expect(findRewrite(mark, { ...mark, oid: "9" })).toMatch(/another table/);
  expect(findRewrite(mark, { ...mark, filenode: "9" })).toMatch(/rewritten/);
  expect(findRewrite(mark, { ...mark, digest: "9" })).toMatch(/definition/);
  expect(findRewrite(undefined, mark)).toMatch(/does not tell/);
  expect(findRewrite(mark, "it is unlogged")).toBe("it is unlogged");
  expect(findRewrite(mark, undefined)).toMatch(/cannot be tracked/);
});
