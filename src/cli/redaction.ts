/** Hides the secrets in a text. */
export type Redact = (text: string) => string;

// Up to the last @ of the word: a password with an @ or a / of its own, typed as it is, is hidden whole.
const USER_INFO = /(:\/\/[^\s:/@]*):[^\s]*@/g;
const QUERY = /([?&;](?:password|pwd|sslpassword|secret|token)=)[^&;\s"']*/gi;

/** Hides passwords in URLs. It needs to know nothing, so it works before any job was read. */
export function redactUrls(text: string): string {
  return text.includes("://") ? text.replace(USER_INFO, "$1:***@").replace(QUERY, "$1***") : text;
}

/** Gives what hides secrets: passwords in URLs, and every secret that a job resolved in this process. */
export async function loadRedact(): Promise<Redact> {
  const { redactSecrets } = await import("../job/secrets.ts");
  return (text) => redactSecrets(redactUrls(text));
}
