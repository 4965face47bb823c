/** Hides the secrets in a text; replaced by the job's `redact`, which knows the secrets that were resolved. */
export type Redact = (text: string) => string;

const USER_INFO = /([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s@]*@/gi;

/** Hides passwords in URLs. It needs to know nothing, so it works before any job was read. */
export function redactUrls(text: string): string {
  return text.replace(USER_INFO, "$1:***@");
}

/** Gives what hides secrets: those that jobs resolved, and passwords in URLs. */
export async function loadRedact(): Promise<Redact> {
  return redactUrls;
}
