#!/usr/bin/env bash
# Guess: an ext4 with errors=remount-ro that has met an error is shown as "ro" by
#   /proc/self/mountinfo and findmnt. So a health probe can read it there.
# Behaviour: they still say "rw", and test -w says yes, while every write fails with
#   "Read-only file system". Only the file system's own options have a new word, emergency_ro.
#   Kernels older than 6.12 said "ro"; the word is newer than the change.
# What helps: probe with a small write and an fsync.
# Versions: Debian 12, mount and util-linux 2.38.1-5+deb12u3, e2fsprogs 1.47.0-2+b2, with their
#   libraries; Linux 6.18.
# Output seen:
#   before the error: rw,relatime rw,errors=remount-ro; a write: done
#   after the error:  rw,relatime rw,errors=remount-ro,emergency_ro; a write: Read-only file system
#   test -w: yes
# Needs: root, apt-get with the package lists of Debian 12, Linux 6.12 or newer, a free loop
#   device, /sys/fs/ext4.
# Exit codes: 0 if it is as above, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

packages=(
    {mount,util-linux,libblkid1,libmount1,libsmartcols1,libuuid1}=2.38.1-5+deb12u3
    {e2fsprogs,libcom-err2,libext2fs2}=1.47.0-2+b2
)

skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "not root"
for tool in apt-get dpkg-deb; do command -v "$tool" >/dev/null || skip "no $tool"; done
[ "$(printf '6.12\n%s\n' "$(uname -r)" | sort -V | head -n 1)" = 6.12 ] ||
    skip "Linux $(uname -r) is older than 6.12"

folder=$(mktemp -d)
clean_up() {
    umount "$folder/mnt" 2>/dev/null || true
    if [ -e "$folder/image" ]; then
        for left in $(losetup --associated "$folder/image" --noheadings --output NAME); do
            losetup --detach "$left" || true
        done
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
for tool in losetup mount umount findmnt mkfs.ext4; do
    [[ $(command -v "$tool") == "$folder"/* ]] || skip "$tool cannot run from $folder"
done
export MKE2FS_CONFIG=$folder/root/etc/mke2fs.conf

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
