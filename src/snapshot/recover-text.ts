import type { Codec } from "../archive/chunk-codec.ts";
import { extensionOf } from "../archive/entry-name.ts";

const EXPAND: Readonly<Record<Codec, string>> = { zstd: "zstd -dc", gzip: "gzip -dc", none: "cat" };

/** Renders `RECOVER.md`: how a person gets everything back with `tar`, the codec's own tool and `psql`. */
export function renderRecoverText({ compression }: { readonly compression: { readonly codec: Codec } }): string {
  const expand = EXPAND[compression.codec];
  const ending = extensionOf(compression.codec);
  return `# How to restore this snapshot by hand

You need the volumes (\`volume-0001.tar\` and so on) of this folder, a POSIX shell, ${[...new Set(["tar", expand.split(" ")[0], "psql"])].join(", ")}, and an
empty database. Set PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE for it. Restore only a snapshot that you
trust: its definitions are run as they are.

## 1. Unpack

    for volume in volume-*.tar; do tar -xf "$volume"; done

## 2. Create what comes before the rows

    n=$(head -n 1 schema.sql | tr -dc 0-9)
    head -n "$n" schema.sql | psql -X -q -1 -v ON_ERROR_STOP=1 -f -

## 3. Load the rows

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

## 4. Set the sequences, then create what comes after the rows

    psql -X -q -1 -v ON_ERROR_STOP=1 -f recover/sequences.sql >/dev/null
    tail -n +"$((n + 1))" schema.sql | psql -X -q -1 -v ON_ERROR_STOP=1 -f -

## 5. Check

\`manifest.json\` beside the volumes is plain JSON: it has the number of rows of every table, the SHA-256 of every volume and
chunk, and the list of the stored files. The file that stands at place N of its list \`files\` is in the folder \`files/N\`
(six digits), in pieces to be put one behind the other:

    find files/000001 -type f | LC_ALL=C sort | xargs cat | ${expand} > restored-file
`;
}
