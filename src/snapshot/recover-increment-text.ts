export interface RecoverIncrementOptions {
  /** The command that expands a chunk: `zstd -dc`. */
  readonly expand: string;
  /** The age command's part that names the secret key; undefined: nothing is encrypted. */
  readonly identity?: string | undefined;
}

/**
 * Renders how the rows of an incremental are loaded by hand: its chunks lie in the folders of several snapshots, at places that
 * only the manifest tells. Lists of removed rows are commands for sed.
 */
export function renderIncrementRows({ expand, identity }: RecoverIncrementOptions): string {
  const decrypt = identity === undefined ? "" : ' | age -d -i "$folder/snapshot-key.txt"';
  return `## 3. Load the rows

This is an incremental: what did not change lies in earlier snapshots, which must be where they were, beside this folder.
\`manifest.json\` tells where; jq (https://jqlang.org) reads it.
${identity === undefined ? "" : renderKeys(identity)}
    chunks() {
      jq -r ". as \\$m | $1 | .[] | (if .snapshot == null then {folder: \\".\\", volumes: \\$m.volumes}
          else {folder: (\\"../\\" + \\$m.references[.snapshot].id), volumes: \\$m.references[.snapshot].volumes} end) as \\$s |
        [\\$s.folder, \\$s.volumes[.volume].name, .offset, .size] | @tsv" manifest.json |
      while read -r folder volume offset size; do
        tail -c "+$((offset + 1))" "$folder/$volume" | head -c "$size"${decrypt} | ${expand} || exit 1
      done
    }
    for sql in recover/*.text.sql; do
      [ -e "$sql" ] || continue
      table=$(($(basename "$sql" .text.sql | sed 's/^0*//') - 1))
      chunks ".tables[$table].removed.chunks // []" >removed.sed
      chunks "[.tables[$table].segments[].chunks[]]" | sed -f removed.sed |
        psql -X -q -v ON_ERROR_STOP=1 -c "$(cat "$sql")"
    done
    for sql in recover/*.binary.sql; do
      [ -e "$sql" ] || continue
      table=$(($(basename "$sql" .binary.sql | sed 's/^0*//') - 1))
      chunks "[.tables[$table].segments[].chunks[]]" | psql -X -q -v ON_ERROR_STOP=1 -c "$(cat "$sql")"
    done
    if [ -e recover/large-objects.sql ]; then
      chunks .largeObjects.chunks | psql -X -q -v ON_ERROR_STOP=1 -c "$(cat recover/large-objects.sql)"
    fi

Content of the first stored file, when there is one: \`chunks '.files[0].chunks'\`.
`;
}

function renderKeys(identity: string): string {
  return `
    age -d -i snapshot-key.txt -o manifest.json manifest.json.age
    for id in $(jq -r '.references // [] | .[].id' manifest.json); do
      age -d ${identity}-o "../$id/snapshot-key.txt" "../$id/key.age"
    done
`;
}
