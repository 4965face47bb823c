import { codeOf, isAbort, OperationalError } from "../base/errors.ts";
import { type DestinationReason, destinationError } from "./destination.ts";

/** What an error means in a destination's words; the cause stays with it. */
export interface ErrorMeaning {
  readonly code: DestinationReason;
  readonly words: string;
  readonly hint?: string | undefined;
}

/** The answer to reading what lies in an archive. */
export const ARCHIVED: ErrorMeaning = {
  code: "archived",
  words: "it lies in an archive and must be thawed first",
  hint: "Ask for it with restore --thaw, which takes hours, or read another destination with --from.",
};

const UNREACHABLE: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the server refuses the connection",
  ECONNRESET: "the connection was cut",
  EPIPE: "the connection was cut",
  ENOTFOUND: "its host name is unknown",
  EAI_AGAIN: "its host name cannot be looked up now",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached",
  ETIMEDOUT: "the server does not answer",
  ECONNABORTED: "the connection was cut",
};

const UNREACHABLE_HINT = "Check host, port and network, or try again later.";

const CERTIFICATE = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_TLS_CERT)/;

/** What an error of a socket or of TLS means; undefined when it is none. */
export function networkMeaning(error: unknown): ErrorMeaning | undefined {
  const system = codeOf(error) ?? "";
  const words = UNREACHABLE[system];
  if (words !== undefined) {
    return { code: "unreachable", words, hint: UNREACHABLE_HINT };
  }
  if (system === "EPROTO") {
    return {
      code: "failed",
      words: "it does not speak TLS there",
      hint: "Check the port, or write http:// for https://.",
    };
  }
  if (!CERTIFICATE.test(system)) return undefined;
  const hint = "Give the authority that signed it, or use the host name that it was made for.";
  return { code: "denied", words: "its certificate is not trusted", hint };
}

/**
 * Makes a destination's error of a protocol's error by the first meaning that fits; our own errors and aborts stay
 * what they are, and so does a mistake in the program.
 */
export function remoteError(
  error: unknown,
  action: string,
  meaningOf: (error: unknown) => ErrorMeaning | undefined,
): unknown {
  if (error instanceof OperationalError || isAbort(error)) return error;
  if (error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError) return error;
  const meaning = meaningOf(error) ?? networkMeaning(error);
  if (meaning === undefined) return error;
  const { code, words, hint = code === "unreachable" ? UNREACHABLE_HINT : undefined } = meaning;
  return destinationError(`cannot ${action}: ${words}`, code, { hint, cause: error });
}
