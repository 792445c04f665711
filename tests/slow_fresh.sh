#!/usr/bin/env bash
# The first command on a fresh machine: builds and draws in a bare root of each Debian release: slow_fresh.sh [RELEASE...]
# Without arguments: bookworm and trixie. Needs root, debootstrap and the network; takes as long as a first build for each.
# Exit 0: all drew; 77: it cannot be tried here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
releases=("$@")
((${#releases[@]})) || releases=(bookworm trixie)
((EUID == 0)) || { echo "a bare root needs to be made by root"; exit 77; }
command -v debootstrap >/dev/null || { echo "debootstrap is not installed"; exit 77; }

work=$(mktemp -d)
end() {
  local mounted
  for mounted in "$work"/*/proc; do umount "$mounted" 2>/dev/null || true; done
  rm -rf --one-file-system "$work"
}
trap end EXIT

try() { # release
  local bare=$work/$1 log=$work/$1.log
  local started=$SECONDS
  debootstrap --variant=minbase "$1" "$bare" >"$log" 2>&1 || { tail -n 5 "$log"; echo "no bare root of $1 can be made here"; return 77; }
  mount -t proc proc "$bare/proc"
  cp /etc/resolv.conf "$bare/etc/resolv.conf"
  # certificates that the administrator of this machine trusts, where the network needs them
  cp -r /usr/local/share/ca-certificates "$bare/usr/local/share/" 2>/dev/null || true
  mkdir "$bare/atelier"
  # what a clone holds: tracked files only
  git -C "$root" archive HEAD | tar -x -C "$bare/atelier"
  chroot "$bare" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    bash -c 'cd /atelier && ./atelier t2i --model_name mini --prompt "a red circle above a blue square"' >"$log" 2>&1 ||
    { tail -n 40 "$log"; echo "FAILED: $1"; return 1; }
  [[ -s $bare/atelier/output/000000.png ]] || { tail -n 40 "$log"; echo "FAILED: $1 has drawn nothing"; return 1; }
  grep -E "built in|atelier set-up: .* ready" "$log" | tail -n 2 || true
  umount "$bare/proc"
  rm -rf --one-file-system "$bare"
  echo "passed: $1, in $((SECONDS - started)) s"
}

status=0
for release in "${releases[@]}"; do
  try "$release" || { code=$?; ((status == 1)) || status=$code; }
done
exit "$status"
