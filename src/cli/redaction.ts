/** Hides the secrets in a text. */
export type Redact = (text: string) => string;

// Up to the last @ of the word: a password with an @ or a / of its own, typed as it is, is hidden whole.
const USER_INFO = /(:\/\/[^\s:/@]*):[^\s]*@/g;
const QUERY = /([?&;](?:password|pwd|sslpassword|secret|token)=)[^&;\s"']*/gi;

/** Secret keys of age, which look like nothing else. */
const SECRET_KEY = /(AGE-SECRET-KEY-(?:PQ-)?1)[0-9A-Z]+/gi;

/** Hides passwords in URLs and secret keys. It needs to know nothing, so it works before any job was read. */
export function redactUrls(text: string): string {
  const hidden = text.replace(SECRET_KEY, "$1***");
  return hidden.includes("://") ? hidden.replace(USER_INFO, "$1:***@").replace(QUERY, "$1***") : hidden;
}

/** Gives what hides secrets: passwords in URLs, and every secret that a job resolved in this process. */
export async function loadRedact(): Promise<Redact> {
  const { redactSecrets } = await import("../job/secrets.ts");
  return (text) => redactSecrets(redactUrls(text));
}
