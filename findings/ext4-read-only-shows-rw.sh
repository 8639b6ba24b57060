#!/usr/bin/env bash
# Guess: an ext4 with errors=remount-ro that has met an error is shown as "ro" by
#   /proc/self/mountinfo and findmnt. So a health probe can read it there.
# Behaviour: they still say "rw", and test -w says yes, while every write fails with
#   "Read-only file system". Only the file system's own options have a new word, emergency_ro.
#   Kernels older than 6.12 said "ro"; the word is newer than the change.
# What helps: probe with a small write and an fsync.
# Versions: Debian 12 with Linux 6.18; mount 2.38.1-5+deb12u3, e2fsprogs 1.47.0-2+b2.
# Output seen:
#   before the error: rw,relatime rw,errors=remount-ro; a write: done
#   after the error:  rw,relatime rw,errors=remount-ro,emergency_ro; a write: Read-only file system
#   test -w: yes
# Needs: root, Linux 6.12 or newer, a free loop device, /sys/fs/ext4.
# Exit codes: 0 if it is as above, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

skip() { echo "skipped: $1"; exit 77; }
for tool in losetup mount findmnt mkfs.ext4; do
    command -v "$tool" >/dev/null || skip "no $tool: apt-get install e2fsprogs mount util-linux"
done
[ "$(id -u)" = 0 ] || skip "not root"
[ "$(printf '6.12\n%s\n' "$(uname -r)" | sort -V | head -n 1)" = 6.12 ] ||
    skip "Linux $(uname -r) is older than 6.12"
for seen in mount=2.38.1-5+deb12u3 e2fsprogs=1.47.0-2+b2; do
    version=$(dpkg-query -W -f '${Version}' "${seen%%=*}" 2>/dev/null || echo unknown)
    [ "$version" = "${seen#*=}" ] || echo "note: ${seen%%=*} $version, not ${seen#*=}"
done

folder=$(mktemp -d)
clean_up() {
    umount "$folder/mnt" 2>/dev/null || true
    for left in $(losetup --associated "$folder/image" --noheadings --output NAME); do
        losetup --detach "$left" || true
    done
    rm -rf "$folder"
}
trap clean_up EXIT
changed() { echo "changed: $1"; exit 1; }

truncate -s 16M "$folder/image"
mkfs.ext4 -q -F "$folder/image"
mkdir "$folder/mnt"
device=$(losetup --find --show "$folder/image" 2>&1) || skip "no loop device: $device"
why=$(mount -t ext4 -o errors=remount-ro "$device" "$folder/mnt" 2>&1) || skip "no mount: $why"

options() { findmnt --noheadings --output VFS-OPTIONS,FS-OPTIONS --mountpoint "$folder/mnt"; }
write() {
    local said
    if said=$( (echo x >"$folder/mnt/file") 2>&1); then echo "done"; else echo "${said##*: }"; fi
}

echo "before the error: $(options); a write: $(write)"
[ "$(write)" = done ] || changed "a write before the error"

# The kernel has this switch for tests of programs like ours: it notes an error, no more.
switch=/sys/fs/ext4/${device#/dev/}/trigger_fs_error
[ -w "$switch" ] || skip "no $switch"
echo "a test" >"$switch"

now=$(options) written=$(write)
echo "after the error:  $now; a write: $written"
[ "$written" = "Read-only file system" ] || changed "a write after the error"
for shown in $now; do
    case ",$shown," in *,ro,*) changed "it is shown as read-only" ;; esac
    case ",$shown," in *,rw,*) ;; *) changed "it is not shown as rw" ;; esac
done
[ -w "$folder/mnt" ] || changed "test -w says no"
echo "test -w: yes"
echo "as described"
