import { describe, expect, test } from "vitest";
import { postgresMajors } from "../support/postgres.ts";
import { openRowShop } from "./row-shop.ts";

const TABLE = `create function fine(i int) returns bool language plpgsql immutable as $$ begin return true; end $$;
  create domain d as int; create table t (id int primary key, i int, d d, constraint fine check (fine(i)));
  insert into t values (1, -1, 1), (2, 2, 2)`;
const fine = (body: string) =>
  `create or replace function fine(i int) returns bool language plpgsql immutable as $$ begin ${body} end $$`;
const STATE =
  "select t::text from t union all select conname || pg_get_constraintdef(oid) from pg_constraint where contype = 'c' and connamespace = 'public'::regnamespace order by 1";

describe.each(postgresMajors)("restoring chosen rows that a constraint of PostgreSQL %i refuses today", (major) => {
  test.each(["replace", "insert-missing", "upsert"] as const)(
    "makes a check NOT VALID whose function changed since, by mode %s",
    async (mode) => {
      await using shop = await openRowShop(major, TABLE);

      for (const body of ["return i > 0;", "if i < 0 then raise 'low'; end if; return true;"]) {
        await shop.run(`delete from t where id = 1; alter table t drop constraint fine; ${fine("return true;")};
          alter table t add constraint fine check (fine(i)); ${fine(body)}`);
        const { warnings } = await shop.rows({ tables: ["t"], where: "id = 1", mode });

        expect(warnings).toEqual([expect.stringMatching(/^check fine of public\.t is restored as NOT VALID: /)]);
        expect(await shop.run(STATE)).toEqual(["(1,-1,1)", "(2,2,2)", "fineCHECK (fine(i)) NOT VALID"]);
      }
    },
  );

  test.each(["replace", "insert-missing", "upsert"] as const)(
    "refuses them for what came later, with a hint, by mode %s, and leaves all as it was",
    async (mode) => {
      await using shop = await openRowShop(major, `${TABLE}; update t set d = null where id = 1`);
      const later = async (sql: string) => {
        await shop.run(`delete from t where id = 1; ${sql}`);
        const before = await shop.run(STATE);
        const error: unknown = await shop.rows({ tables: ["t"], where: "id = 1", mode }).catch((caught) => caught);
        expect(await shop.run(STATE)).toEqual(before);
        return error;
      };

      const low = await later("alter table t add constraint low check (i > 0)");
      const notNull = await later("alter table t drop constraint low; alter domain d set not null");
      const raised = await later(`alter domain d drop not null; alter table t drop constraint fine;
        ${fine("if i < 0 then raise 'low'; end if; return true;")}; alter table t add constraint "Later" check (fine(i + 0))`);

      expect(low).toMatchObject({ code: "23514", hint: expect.stringContaining("make it NOT VALID") });
      expect(notNull).toMatchObject({ code: "23502", hint: expect.stringContaining("drop that constraint") });
      expect(raised).toMatchObject({
        code: "P0001",
        hint: expect.stringContaining("the one that raises it: Later of public.t."),
      });
    },
  );
});
