import { codeOf, OperationalError } from "../../base/errors.ts";
import type { ChosenTable, SequenceState, TableChoice } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteName } from "./postgres-quote.ts";
import { schemaChanged } from "./schema-changed.ts";

const SEQUENCES = `
  select n.nspname, c.relname, s.seqincrement, tn.nspname, t.relname, a.attname,
         pg_catalog.has_sequence_privilege(c.oid, 'select')
    from pg_catalog.pg_sequence s
    join pg_catalog.pg_class c on c.oid = s.seqrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                                    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0
                                    and d.deptype in ('a', 'i')
    left join pg_catalog.pg_class t on t.oid = d.refobjid
    left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
    left join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
   where c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
     and not exists (select from pg_catalog.pg_depend x where x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                                          and x.objid = c.oid and x.deptype = 'e')
   order by n.nspname, c.relname`;

const SEQUENCES_A_STATEMENT = 200;

/**
 * Reads the state of every sequence that does not belong to an excluded table. Fails when one may not be read; with code
 * `schema-changed` when one was dropped since the snapshot.
 */
export async function readSequences(
  client: PostgresClient,
  choose: (table: ChosenTable) => TableChoice,
): Promise<readonly SequenceState[]> {
  try {
    return await read(client, choose);
  } catch (error) {
    throw codeOf(error) === "not-found" ? schemaChanged("cannot read the sequences", "one") : error;
  }
}

async function read(client: PostgresClient, choose: (table: ChosenTable) => TableChoice): Promise<SequenceState[]> {
  const rows = await client.query(SEQUENCES);
  const wanted = rows.filter(
    (row) => row[4] === null || choose({ schema: row[3] ?? "", name: row[4] ?? "" }) !== "excluded",
  );
  // Null for one that was dropped since the snapshot: to read it fails as not found.
  const denied = wanted.filter((row) => row[6] === "f").map((row) => `${row[0]}.${row[1]}`);
  if (denied.length > 0) {
    throw new OperationalError(`cannot read the sequences ${denied.slice(0, 5).join(", ")}: SELECT is missing`, {
      kind: "database",
      code: "denied",
      hint: `GRANT SELECT ON ALL SEQUENCES IN SCHEMA … TO ${client.connection.user}.`,
    });
  }
  const states: SequenceState[] = [];
  for (let at = 0; at < wanted.length; at += SEQUENCES_A_STATEMENT) {
    const part = wanted.slice(at, at + SEQUENCES_A_STATEMENT);
    const selects = part.map(
      (row, index) => `select ${index}, last_value, is_called from ${quoteName(row[0] ?? "", row[1] ?? "")}`,
    );
    const values = new Map((await client.query(selects.join(" union all "))).map((row) => [Number(row[0]), row]));
    for (const [index, row] of part.entries()) {
      const value = values.get(index);
      states.push({
        schema: row[0] ?? "",
        name: row[1] ?? "",
        lastValue: value?.[1] ?? "",
        isCalled: value?.[2] === "t",
        increment: row[2] ?? "1",
        ...(row[5] ? { ownedBy: { schema: row[3] ?? "", table: row[4] ?? "", column: row[5] } } : {}),
      });
    }
  }
  return states;
}
