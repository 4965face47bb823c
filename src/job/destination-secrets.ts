import { join } from "node:path";
import { isSecretValue, type WrittenDestination } from "./destination-url.ts";
import type { Home } from "./home.ts";

export interface SecretFile {
  readonly path: string;
  readonly text: string;
}

/**
 * Takes the secrets that somebody typed out of destinations: gives destinations with references in their place, and the
 * files that the references lead to. Pure: nothing is written.
 */
export function planSecretFiles(
  home: Pick<Home, "secrets">,
  job: string,
  destinations: readonly WrittenDestination[],
): { readonly destinations: readonly WrittenDestination[]; readonly files: readonly SecretFile[] } {
  const files: SecretFile[] = [];
  const hidden = destinations.map((destination, index) => {
    const fields: Record<string, string | number | boolean> = { ...destination };
    for (const [name, value] of Object.entries(destination)) {
      if (!isSecretValue(name, value)) continue;
      const path = join(home.secrets, `${job}.${destination.type}-${index + 1}.${name}`);
      files.push({ path, text: `${String(value)}\n` });
      fields[name] = `file:${path}`;
    }
    return fields as unknown as WrittenDestination;
  });
  return { destinations: hidden, files };
}
