/**
 * A condition for the triggers `g` that people made. Before version 15 those that partitions have from their root are called internal, as
 * those of foreign keys are.
 */
export const IS_MADE_BY_PEOPLE = `(not g.tgisinternal or g.tgparentid <> 0 and not exists (
        select from pg_catalog.pg_constraint k where k.oid = g.tgconstraint and k.contype <> 't'))`;
