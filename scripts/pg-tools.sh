#!/usr/bin/env bash
# PostgreSQL clients for the tests and the benchmark, on Debian as root: version 15 and zstd as packages, version 18 from
# a newer Debian, unpacked with its own libraries below .services/pg18. Quick and silent when all of it is there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
services=$root/.services
bin=$services/bin
release=forky
mkdir -p "$bin"

missing=()
command -v zstd > /dev/null || missing+=(zstd)
[ -x /usr/lib/postgresql/15/bin/pg_dump ] || missing+=(postgresql-client-15)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get install -y --no-install-recommends "${missing[@]}" > /dev/null 2>&1 ||
    { apt-get update > /dev/null && apt-get install -y --no-install-recommends "${missing[@]}" > /dev/null; }
fi

[ -x "$bin/pg_dump-18" ] && exit 0

# The mirror that this machine uses, whichever it is.
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null || true; } |
  sed -nE 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p; s/^deb([[:space:]]+\[[^]]*\])?[[:space:]]+([^[:space:]]+).*/\2/p' |
  grep -E '/debian/?$' | sed -n 1p)
[ -n "$mirror" ] || { echo "error: no Debian mirror in the sources of apt" >&2; exit 1; }

apt=$services/apt
target=$services/pg18
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$target"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg trusted=yes] $mirror $release main" > "$apt/sources.list"
: > "$apt/status"
options=(
  -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
  -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root
)
apt-get "${options[@]}" update > /dev/null
apt-get "${options[@]}" install -y --no-install-recommends --download-only postgresql-client-18 libpq5 > /dev/null
for package in "$apt"/cache/archives/*.deb; do
  case $(basename "$package") in
    perl* | libperl* | debconf* | dpkg* | coreutils*) ;;
    *) dpkg-deb -x "$package" "$target" ;;
  esac
done
libraries=$target/usr/lib/x86_64-linux-gnu
for tool in pg_dump pg_restore psql; do
  # Its own loader and C library: the machine's may be older than it was built for.
  cat > "$bin/$tool-18" << SCRIPT
#!/bin/sh
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$target/usr/lib/postgresql/18/bin/$tool" "\$@"
SCRIPT
  chmod +x "$bin/$tool-18"
done
rm -rf "$apt"
"$bin/pg_dump-18" --version
