import { formatPlural } from "../base/counts.ts";
import type { OwnerFailure, OwnerRole } from "../drivers/creator.ts";
import type { Definition, ObjectOwner } from "../drivers/driver.ts";

export interface OwnersToPlan {
  readonly definitions: readonly Definition[];
  /** What the target knows of the roles that own something. */
  readonly roles: readonly OwnerRole[];
  /** The connected role: it owns everything that nobody else is given. */
  readonly user: string;
  /** How many the snapshot holds, whose owners it does not know. */
  readonly largeObjects: number;
  /** The person asked for owners. */
  readonly wanted: boolean;
}

export interface OwnerPlan {
  /** In the order of the definitions: schemas first. */
  readonly assign: readonly ObjectOwner[];
  /** One sentence for each role that cannot get its objects. */
  readonly warnings: readonly string[];
  /** What is left alone because nobody asked for it. */
  readonly notes: readonly string[];
}

/** Owners that are not the connected role, each once. */
export function otherOwners(definitions: readonly Definition[], user: string): readonly string[] {
  return [...new Set(ownersOf(definitions, user).map(({ role }) => role))].sort();
}

/** Decides which objects get their owners, and says which ones do not. */
export function planOwners({ definitions, roles, user, largeObjects, wanted }: OwnersToPlan): OwnerPlan {
  const owners = ownersOf(definitions, user);
  if (owners.length === 0) return { assign: [], warnings: [], notes: [] };
  if (!wanted) {
    const list = roles.map(({ role }) => `${role} (${formatPlural(countOf(owners, role), "object")})`).join(", ");
    return { assign: [], warnings: [], notes: [`owners are not restored, all will belong to ${user}: ${list}`] };
  }
  const assignable = new Set(roles.filter(({ isAssignable }) => isAssignable).map(({ role }) => role));
  const warnings = roles
    .filter(({ role }) => !assignable.has(role))
    .map(({ role, exists }) => {
      const reason = exists ? `${user} may not give objects to that role` : "the target has no such role";
      return sentence({ role, count: countOf(owners, role), user, reason });
    });
  if (largeObjects > 0) {
    warnings.push(
      `${formatPlural(largeObjects, "large object")} ${largeObjects === 1 ? "belongs" : "belong"} to ${user} now: a snapshot does not hold their owners`,
    );
  }
  return { assign: owners.filter(({ role }) => assignable.has(role)), warnings, notes: [] };
}

/** One sentence for each role and reason. */
export function renderOwnerFailures(failures: readonly OwnerFailure[], user: string): readonly string[] {
  const groups = new Map<string, OwnerFailure[]>();
  for (const failure of failures) {
    const key = `${failure.role}\0${failure.reason}`;
    groups.set(key, [...(groups.get(key) ?? []), failure]);
  }
  return [...groups.values()].flatMap((group) =>
    group.slice(0, 1).map(({ role, reason }) => sentence({ role, count: group.length, user, reason })),
  );
}

interface Sentence {
  readonly role: string;
  readonly count: number;
  readonly user: string;
  readonly reason: string;
}

function sentence({ role, count, user, reason }: Sentence): string {
  return `${formatPlural(count, "object")} of ${role} ${count === 1 ? "belongs" : "belong"} to ${user} now: ${reason}`;
}

function ownersOf(definitions: readonly Definition[], user: string): readonly ObjectOwner[] {
  return definitions.flatMap(({ kind, owner }) => (owner && kind !== "grant" && owner.role !== user ? [owner] : []));
}

function countOf(owners: readonly ObjectOwner[], role: string): number {
  return owners.filter((owner) => owner.role === role).length;
}
