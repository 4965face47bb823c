import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import { type ErrorMeaning, networkMeaning } from "./network-errors.ts";

const DENIED = /denied|permission|permitted|not allowed|read-?only|forbidden/i;
const FULL = /no space|disk full|quota|insufficient|allocation|storage/i;
const NOT_UNDERSTOOD = "ERR_FTP_ANSWER";
const PASSIVE_HINT = "Check that the firewall lets the server's passive ports through.";

/** The three digits that the server answered with (RFC 959, section 4.2); undefined when it did not answer. */
export function replyCodeOf(error: unknown): number | undefined {
  const { name, code } = (error ?? {}) as { readonly name?: unknown; readonly code?: unknown };
  return name === "FTPError" && typeof code === "number" ? code : undefined;
}

/** Tells whether an answer says that there is no such file or folder: FTP has one code for this and for much else. */
export function saysMissing(error: unknown): boolean {
  const code = replyCodeOf(error);
  return (code === 550 || code === 450) && !DENIED.test(messageOf(error));
}

/** Tells whether a server refuses one more connection because it has enough of them. */
export function saysTooMany(error: unknown): boolean {
  const code = replyCodeOf(error);
  return code === 421 || (code === 530 && /too many|maximum|limit/i.test(messageOf(error)));
}

/** What an answer of the server, or none, means. */
export function ftpMeaning(error: unknown): ErrorMeaning | undefined {
  const code = replyCodeOf(error);
  return code === undefined ? silentMeaning(error) : (textMeaning(error, code) ?? replyMeaning(error, code));
}

/** The same while connecting, where some codes mean the credentials or TLS. */
export function ftpConnectMeaning(error: unknown): ErrorMeaning | undefined {
  const code = replyCodeOf(error);
  const says = messageOf(error);
  if (code !== undefined && saysTooMany(error)) {
    const hint = "Wait until other programs have closed theirs, or allow this user more.";
    return { code: "busy", words: "the server has enough connections for now", hint };
  }
  if (code !== undefined && /SSL|TLS/.test(says) && !/^\d+[ -]AUTH .*(not understood|unknown)/i.test(says)) {
    return { code: "denied", words: "the server wants TLS", hint: "Set tls to explicit, or to implicit." };
  }
  if (code === 430 || code === 530 || code === 532 || code === 332) {
    return { code: "denied", words: "the server does not accept user and password", hint: "Check user and password." };
  }
  if (code !== undefined && code >= 500 && code < 600) {
    const hint = "Let the server offer TLS, or set tls to off where the network itself is trusted.";
    return { code: "denied", words: `the server offers no TLS (${says})`, hint };
  }
  return ftpMeaning(error);
}

function textMeaning(error: unknown, code: number): ErrorMeaning | undefined {
  if (code < 450 || code === 530) return undefined;
  const says = messageOf(error);
  if (code === 452 || code === 552 || FULL.test(says)) {
    return { code: "full", words: "no space left", hint: "Free space at the destination, or raise its quota." };
  }
  if (DENIED.test(says)) {
    return { code: "denied", words: "access denied", hint: "Allow this user to read and write in the folder." };
  }
  return undefined;
}

function replyMeaning(error: unknown, code: number): ErrorMeaning {
  const says = messageOf(error);
  switch (code) {
    case 421:
      return { code: "unreachable", words: "the server ended the connection" };
    case 425:
      return { code: "unreachable", words: "no data connection can be opened", hint: PASSIVE_HINT };
    case 426:
      return { code: "unreachable", words: "the data connection was cut" };
    case 451:
      return { code: "failed", words: `the server says: ${says}`, hint: "Check the disk and the log of the server." };
    case 450:
      return { code: "busy", words: `the server says: ${says}` };
    case 530:
    case 532:
      return { code: "denied", words: "access denied", hint: "Check user and password." };
    case 550:
      return /no such|not found|not exist|cannot find|cannot be listed/i.test(says)
        ? { code: "not-found", words: "it does not exist" }
        : { code: "failed", words: `the server says: ${says}` };
    case 553:
      return { code: "denied", words: `the server says: ${says}` };
    default:
      return code >= 500 && code <= 504
        ? { code: "unsupported", words: `the server cannot do it (${says})` }
        : { code: "failed", words: `the server says: ${says}` };
  }
}

function silentMeaning(error: unknown): ErrorMeaning | undefined {
  if (codeOf(error) === NOT_UNDERSTOOD) {
    return { code: "failed", words: `the server's answer is not understood (${messageOf(error)})` };
  }
  const known = networkMeaning(error);
  if (known?.code === "denied") {
    const hint = "Give the authority that signed it as ca, or use the host name that it was made for.";
    return { ...known, hint };
  }
  return known;
}

/**
 * Makes one of the network's errors of what the library reports when a connection ends, and marks what it reports when
 * it cannot understand an answer. Answers, and errors of ours, stay what they are.
 */
export function lostConnection(error: unknown, isClosed: boolean): unknown {
  if (
    !(error instanceof Error) ||
    error instanceof OperationalError ||
    replyCodeOf(error) !== undefined ||
    networkMeaning(error) !== undefined
  )
    return error;
  const says = error.message;
  if (/WRONG_VERSION_NUMBER|EPROTO/.test(`${String((error as { code?: unknown }).code)} ${says}`)) return error;
  const code = /timeout|timed out/i.test(says) ? "ETIMEDOUT" : "ECONNRESET";
  const isData = /data connection|data socket|transfer strateg/i.test(says) || codeOf(error)?.startsWith("ERR_STREAM_");
  if (!isClosed && !isData) return error.name === "Error" ? Object.assign(error, { code: NOT_UNDERSTOOD }) : error;
  return Object.assign(new Error(isData ? says : "the connection was lost", { cause: error }), { code });
}
