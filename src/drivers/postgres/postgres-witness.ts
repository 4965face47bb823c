import { OperationalError } from "../../base/errors.ts";
import type { TrustToken } from "../change-tracker.ts";
import type { PostgresClient } from "./postgres-client.ts";

/**
 * A virtual machine that is set back to an earlier instant with its memory goes on with the same server, started at the same
 * time, and uses transaction numbers again: nothing that the server says of itself differs. So a backup leaves behind some
 * transactions that do nothing, committed or rolled back at random, and the next one asks how each of them ended.
 */
const WITNESSES = 24;

const INVALID_PARAMETER = "22023";

const LEAVE = `do $$
  begin
    for number in 1..${WITNESSES} loop
      if pg_catalog.random() < 0.5 then
        raise notice 'witness %c', pg_catalog.pg_current_xact_id();
        commit;
      else
        raise notice 'witness %r', pg_catalog.pg_current_xact_id();
        rollback;
      end if;
    end loop;
  end $$`;

export interface Witness {
  /** What the next backup asks for; undefined: the server does not let us leave any. */
  readonly witness?: string | undefined;
  /** The server does not know the transactions of the token: it was set back. */
  readonly isSetBack: boolean;
}

/**
 * Asks for the witnesses of an earlier snapshot and leaves new ones, unless nothing was written since. Call it outside a
 * transaction and before the snapshot.
 */
export async function renewWitness(leader: PostgresClient, since: TrustToken | undefined): Promise<Witness> {
  if (leader.serverVersion < 140000 || leader.isPooled) return { isSetBack: false };
  const [row] = await leader.query("select pg_catalog.pg_is_in_recovery(), pg_catalog.pg_current_snapshot()");
  if (row?.[0] !== "f") return { isSetBack: false };
  const isSetBack = since?.witness !== undefined && !(await isKnown(leader, since.witness));
  if (since?.witness !== undefined && !isSetBack && row[1] === since.snapshot) {
    return { witness: since.witness, isSetBack };
  }
  return { witness: await leaveWitness(leader), isSetBack };
}

/** `741c 742r`: numbers of transactions, each with how it ended. */
async function isKnown(leader: PostgresClient, witness: string): Promise<boolean> {
  const told = witness.split(" ");
  try {
    const rows = await leader.query(
      "select pg_catalog.pg_xact_status(w.xid) from pg_catalog.unnest($1::pg_catalog.xid8[]) with ordinality w(xid, number) order by w.number",
      [`{${told.map((one) => one.slice(0, -1)).join(",")}}`],
    );
    return rows.every(([status], index) => status === (told[index]?.endsWith("c") ? "committed" : "aborted"));
  } catch (error) {
    // A number that the server did not reach yet is an error.
    if (error instanceof OperationalError && error.code === INVALID_PARAMETER) return false;
    throw error;
  }
}

async function leaveWitness(leader: PostgresClient): Promise<string | undefined> {
  leader.takeNotices();
  try {
    await leader.query("set client_min_messages = notice");
    await leader.query(LEAVE);
  } catch (error) {
    // Without PL/pgSQL, or the right to use it. A lost connection is found by the next statement.
    if (error instanceof OperationalError) return undefined;
    throw error;
  }
  const told = leader.takeNotices().flatMap((notice) => /^witness (\d+[cr])$/.exec(notice)?.[1] ?? []);
  return told.length === WITNESSES ? told.join(" ") : undefined;
}
