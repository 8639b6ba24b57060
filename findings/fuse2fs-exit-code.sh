#!/usr/bin/env bash
# Guess: if fuse2fs ends with exit code 0, the image is mounted.
# Behaviour: the exit code tells only what is wrong with the image. If libfuse refuses the
#   mount, the reason goes to standard error, the exit code is 0, and nothing is mounted.
#   For example, a file is in the mount point, or there is no mount point.
# What helps: look for the mount point in /proc/self/mountinfo afterwards.
# Versions: Debian 12, fuse2fs 1.47.0-2+b2, libfuse2 2.9.9-6+b1, e2fsprogs 1.47.0-2+b2,
#   Linux 6.18.
# Output seen:
#   an empty mount point: exit code 0, mounted: yes
#   a file in the mount point: exit code 0, mounted: no (fuse: mountpoint is not empty)
#   no mount point: exit code 0, mounted: no (fuse: bad mount point `FOLDER/mnt': No such ...)
#   an image without file system: exit code 2, mounted: no
# Needs: root, /dev/fuse, and the packages fuse2fs and fuse3.
# Exit codes: 0 if it is as above, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

skip() { echo "skipped: $1"; exit 77; }
for tool in fuse2fs mkfs.ext4 fusermount3; do
    command -v "$tool" >/dev/null || skip "no $tool: apt-get install e2fsprogs fuse2fs fuse3"
done
[ "$(id -u)" = 0 ] || skip "not root"
[ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "/dev/fuse cannot be used"
version=$(dpkg-query -W -f '${Version}' fuse2fs 2>/dev/null || echo unknown)
[ "$version" = 1.47.0-2+b2 ] || echo "note: fuse2fs $version, not 1.47.0-2+b2"

folder=$(mktemp -d)
clean_up() {
    cd /
    umount "$folder/mnt" 2>/dev/null || true
    rm -rf "$folder"
}
trap clean_up EXIT
cd "$folder"
truncate -s 16M image blank
mkfs.ext4 -q -F image

is_mounted() { grep -qF " $folder/mnt " /proc/self/mountinfo; }
# Mounts image $2, tells about it under the heading $1, and sets code, mounted and said.
try() {
    code=0 mounted=no
    fuse2fs "$2" "$folder/mnt" >out 2>err || code=$?
    said=$(grep -m 1 '^fuse: ' err || true)
    if is_mounted; then mounted=yes; fi
    echo "$1: exit code $code, mounted: $mounted${said:+ ($said)}"
}
changed() { echo "changed: $1"; exit 1; }

mkdir mnt
try "an empty mount point" image
[ "$code $mounted" = "0 yes" ] || changed "a plain mount fails"
umount mnt

touch mnt/file
try "a file in the mount point" image
[ "$code $mounted" = "0 no" ] || changed "a file in the mount point"
case $said in *"is not empty"*) ;; *) changed "the message for a file in the mount point" ;; esac

rm mnt/file
rmdir mnt
try "no mount point" image
[ "$code $mounted" = "0 no" ] || changed "no mount point"
case $said in *"bad mount point"*) ;; *) changed "the message for no mount point" ;; esac

mkdir mnt
try "an image without file system" blank
[ "$code" != 0 ] && [ "$mounted" = no ] || changed "an image without file system"
echo "as described"
