import { codeOf, messageOf } from "../base/errors.ts";
import type { ErrorMeaning } from "./network-errors.ts";

/** SSH_FX_… of draft-ietf-secsh-filexfer-02, section 7. */
export const SftpStatus = {
  end: 1,
  missing: 2,
  denied: 3,
  failure: 4,
  noConnection: 6,
  lost: 7,
  unsupported: 8,
} as const;

/** The status that the server answered with; undefined when it did not answer. */
export function statusOf(error: unknown): number | undefined {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === "number" ? code : undefined;
}

/** What an answer of the server, or none, means. */
export function sftpMeaning(error: unknown): ErrorMeaning | undefined {
  switch (statusOf(error)) {
    case SftpStatus.missing:
      return { code: "not-found", words: "it does not exist" };
    case SftpStatus.denied:
      return { code: "denied", words: "access denied", hint: "Allow this user to read and write in the folder." };
    case SftpStatus.noConnection:
    case SftpStatus.lost:
      return { code: "unreachable", words: "the connection was cut" };
    case SftpStatus.unsupported:
      return { code: "unsupported", words: "the server cannot do it" };
    case undefined:
      return codeOf(error) === undefined && /response|connect/i.test(messageOf(error))
        ? { code: "unreachable", words: "the connection was cut" }
        : undefined;
    default:
      return { code: "failed", words: `the server says: ${messageOf(error)}` };
  }
}
