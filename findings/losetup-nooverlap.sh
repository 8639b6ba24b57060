#!/usr/bin/env bash
# Guess: losetup --nooverlap fails if the file has a loop device already, or at least leaves
#   that device as it is. And a detach that was accepted with exit code 0 happens.
# Behaviour: losetup --nooverlap takes the device that is there, ends with exit code 0, and
#   clears its AUTOCLEAR flag. If a detach of the device waits for its last close, that is
#   undone: the device stays after the close. A hard link counts as the same file.
# What helps: ask losetup --associated FILE before an attach, and refuse. After a detach, look
#   at /sys/block/loopN/loop/autoclear until the device is gone, and detach again if it is 0.
# Versions: Debian 12, mount (which has losetup) and libsmartcols1 2.38.1-5+deb12u3; Linux 6.18.
# Output seen:
#   detach while the device is open: exit code 0, autoclear 1
#   attach of a hard link with --nooverlap: exit code 0, the same device: yes, autoclear 0
#   a second after the close: still attached
#   without the attach in between: detached by the close
# Needs: root, apt-get with the package lists of Debian 12, a free loop device.
# Exit codes: 0 if it is as above, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

packages=({mount,libsmartcols1}=2.38.1-5+deb12u3)

skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "not root"
for tool in apt-get dpkg-deb; do command -v "$tool" >/dev/null || skip "no $tool"; done

folder=$(mktemp -d)
devices() { losetup --associated "$folder/image" --noheadings --output NAME; }
clean_up() {
    exec 9>&-
    if [ -e "$folder/image" ]; then
        for left in $(devices); do losetup --detach "$left" || true; done
    fi
    rm -rf "$folder"
}
trap clean_up EXIT

# The tools run from the folder; nothing is installed.
why=$(cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download "${packages[@]}" 2>&1) ||
    skip "no pinned packages (no package lists: apt-get update): $why"
for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
export PATH=$folder/root/usr/sbin:$folder/root/usr/bin:$folder/root/sbin:$folder/root/bin:$PATH
libraries=("$folder"/root/{usr/,}lib/*-linux-gnu*)
LD_LIBRARY_PATH=$(IFS=: && echo "${libraries[*]}")
export LD_LIBRARY_PATH
[[ $(command -v losetup) == "$folder"/* ]] || skip "losetup cannot run from $folder"

changed() { echo "changed: $1"; exit 1; }

truncate -s 4M "$folder/image"
ln "$folder/image" "$folder/link"
device=$(losetup --find --show "$folder/image" 2>&1) || skip "no loop device: $device"
autoclear() { cat "/sys/block/${device#/dev/}/loop/autoclear"; }

exec 9<"$device"
code=0
losetup --detach "$device" || code=$?
echo "detach while the device is open: exit code $code, autoclear $(autoclear)"
[ "$code $(autoclear)" = "0 1" ] || changed "detach of an open device"

code=0
taken=$(losetup --find --nooverlap --show "$folder/link") || code=$?
[ "$taken" = "$device" ] && same=yes || same=no
echo "attach of a hard link with --nooverlap: exit code $code," \
    "the same device: $same, autoclear $(autoclear)"
[ "$code $same $(autoclear)" = "0 yes 0" ] || changed "attach during a detach"

exec 9>&-
sleep 1
[ -n "$(devices)" ] || changed "the detach was not undone"
echo "a second after the close: still attached"

# The other way round: what a detach does that nobody undoes.
exec 9<"$device"
losetup --detach "$device"
exec 9>&-
for _ in $(seq 100); do
    [ -n "$(devices)" ] || break
    sleep 0.1
done
[ -z "$(devices)" ] || changed "a detach alone does not take place"
echo "without the attach in between: detached by the close"
echo "as described"
