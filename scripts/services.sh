#!/usr/bin/env bash
# Gets the servers and clients that the tests run against, from Debian's packages: unpacked below .services, so that
# nothing is installed into the system and no system service starts. Quick when everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/.services
root=$folder/root
packages=(openssh-server proftpd-core proftpd-mod-crypto radosgw ceph-mon ceph-osd ceph-common openssl)
programs=(sshd ssh-keygen proftpd radosgw radosgw-admin ceph ceph-mon ceph-osd openssl)

has() {
  [ -x "$root/usr/sbin/$1" ] || [ -x "$root/usr/bin/$1" ] || [ -x "/usr/sbin/$1" ] || [ -x "/usr/bin/$1" ]
}

missing() {
  local program
  for program in "${programs[@]}"; do has "$program" || echo "$program"; done
}

# Names of the packages that have to be fetched: those named and what they need beyond what is installed.
resolve() {
  apt-get -s install --no-install-recommends "${packages[@]}" 2>/dev/null | awk '/^Inst/ { print $2 }'
}

unpack() {
  local list deb
  list=$(resolve) || true
  if [ -z "$list" ]; then
    # A fresh machine has no package lists.
    apt-get update -qq
    list=$(resolve)
  fi
  mkdir -p "$folder/debs" "$root"
  # shellcheck disable=SC2086 # one word per package
  (cd "$folder/debs" && apt-get download -qq $list)
  for deb in "$folder"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
  rm -r "$folder/debs"
}

if [ -n "$(missing)" ]; then
  command -v apt-get > /dev/null || {
    echo "npm run services needs Debian's apt-get; install these yourself: ${packages[*]}" >&2
    exit 1
  }
  unpack
fi
if [ -n "$(missing)" ]; then
  echo "still missing after unpacking: $(missing | tr '\n' ' ')" >&2
  exit 1
fi
if [ -f scripts/pg-tools.sh ]; then bash scripts/pg-tools.sh; fi
bash scripts/oldest-postgres.sh
