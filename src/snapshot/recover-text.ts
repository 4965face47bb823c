import { keyIdOf, type Lock } from "../archive/age-keys.ts";
import type { Codec } from "../archive/chunk-codec.ts";
import { extensionOf } from "../archive/entry-name.ts";
import type { SnapshotKind } from "./manifest.ts";
import { renderIncrementRows } from "./recover-increment-text.ts";

const EXPAND: Readonly<Record<Codec, string>> = { zstd: "zstd -dc", gzip: "gzip -dc", none: "cat" };

export interface RecoverTextOptions {
  readonly compression: { readonly codec: Codec };
  /** What the snapshot is encrypted to; undefined: nothing is encrypted. */
  readonly lock?: Lock | undefined;
  /** An incremental refers to earlier snapshots. */
  readonly kind?: SnapshotKind | undefined;
  /** Of the database; left out: UTF8. */
  readonly encoding?: string | undefined;
}

/** Renders `RECOVER.md`: how a person gets everything back with `tar`, `age`, the codec's own tool and `psql`. */
export function renderRecoverText({ compression, lock, kind, encoding = "UTF8" }: RecoverTextOptions): string {
  const expand = EXPAND[compression.codec];
  const ending = extensionOf(compression.codec);
  const tools = ["tar", ...(lock ? ["age"] : []), expand.split(" ")[0], "psql"];
  const identity = lock && ("passphrase" in lock ? "" : "-i identity.txt ");
  const rows = kind === "incremental" ? renderIncrementRows({ expand, identity }) : renderRows(expand, ending);
  return `# How to restore this snapshot by hand

You need the volumes (\`volume-0001.tar\` and so on) of this folder, a POSIX shell, ${[...new Set(tools)].join(", ")}, and an
empty database. Set PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE for it. Restore only a snapshot that you
trust: its definitions are run as they are.
${encoding === "UTF8" ? "" : renderEncoding(encoding)}
## 1. Unpack

    for volume in volume-*.tar; do tar -xf "$volume"; done
${lock ? renderDecryption(lock) : ""}
## 2. Create what comes before the rows

    n=$(head -n 1 schema.sql | tr -dc 0-9)
    head -n "$n" schema.sql | psql -X -q -1 -v ON_ERROR_STOP=1 -f -

${rows}
## 4. Set the sequences, then create what comes after the rows

    psql -X -q -1 -v ON_ERROR_STOP=1 -f recover/sequences.sql >/dev/null
    tail -n +"$((n + 1))" schema.sql | psql -X -q -1 -v ON_ERROR_STOP=1 -f -

## 5. Check

${lock ? MANIFEST_STEP : "`manifest.json` beside the volumes is plain JSON"}: it has the number of rows of every table, the SHA-256 of every volume and
chunk, and the list of the stored files. The file that stands at place N of its list \`files\` is in the folder \`files/N\`
(six digits), in pieces to be put one behind the other:

    find files/000001 -name '*${ending}' -type f | LC_ALL=C sort | xargs cat | ${expand} > restored-file
`;
}

function renderEncoding(encoding: string): string {
  // Without an encoding there is nothing to convert; else everything is UTF-8, or a COPY says what its rows are.
  const client = encoding === "SQL_ASCII" ? encoding : "UTF8";
  return `
The database had the encoding ${encoding}, and the empty one must have it too:
\`CREATE DATABASE … TEMPLATE template0 ENCODING '${encoding}' LOCALE 'C'\` (or with the locale that it had). Set for psql:

    export PGCLIENTENCODING=${client}
`;
}

function renderRows(expand: string, ending: string): string {
  return `## 3. Load the rows

Each file of \`recover/\` holds the COPY command of one table; its number leads to the folder with the rows. For a single
table run the body of the loop with its file alone.

    for sql in recover/*.text.sql; do
      [ -e "$sql" ] || continue
      number=$(basename "$sql" .text.sql)
      find "$number"-*/ -name '*.tsv${ending}' | LC_ALL=C sort | xargs cat | ${expand} |
        psql -X -q -v ON_ERROR_STOP=1 -c "$(cat "$sql")"
    done

Tables with a value that is too large for text are stored in PostgreSQL's binary format, one file a segment:

    for sql in recover/*.binary.sql; do
      [ -e "$sql" ] || continue
      number=$(basename "$sql" .binary.sql)
      find "$number"-*/ -name '*-000001.bin${ending}' | LC_ALL=C sort | while read -r first; do
        find "$number"-*/ -name "$(basename "$first" -000001.bin${ending})-*.bin${ending}" | LC_ALL=C sort |
          xargs cat | ${expand} | psql -X -q -v ON_ERROR_STOP=1 -c "$(cat "$sql")"
      done
    done

Large objects, when there are any:

    if [ -e recover/large-objects.sql ]; then
      find 0000-large-objects -name '*.tsv${ending}' | LC_ALL=C sort | xargs cat | ${expand} |
        psql -X -q -v ON_ERROR_STOP=1 -c "$(cat recover/large-objects.sql)"
    fi
`;
}

const MANIFEST_STEP = `\`age -d -i snapshot-key.txt manifest.json.age\` gives plain JSON`;

function renderDecryption(lock: Lock): string {
  const passphrase = "passphrase" in lock;
  const whose = passphrase
    ? "age asks for the passphrase of the job."
    : `\`identity.txt\` is the file with your secret key. Its id, which the key file and the
recovery kit name, is ${lock.recipients.map(keyIdOf).join(" or ")}.`;
  return `
### Decrypt

The snapshot has a key of its own, which yours opens (age: https://age-encryption.org). ${whose}

    umask 077
    age -d ${passphrase ? "" : "-i identity.txt "}-o snapshot-key.txt key.age
    find . -name '*.age' ! -name key.age ! -name manifest.json.age | while IFS= read -r file; do
      age -d -i snapshot-key.txt -o "\${file%.age}" "$file" || exit 1
      rm "$file"
    done

Delete \`snapshot-key.txt\` and the decrypted files when you are done. age proves that every file is whole and was written
for this key, not that it is in its place: the hashes of the manifest (step 5) do.
`;
}
