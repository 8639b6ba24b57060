#!/usr/bin/env bash
# Guess: if fuse2fs ends with exit code 0, the image is mounted.
# Behaviour: the exit code tells only what is wrong with the image. If libfuse refuses the
#   mount, the reason goes to standard error, the exit code is 0, and nothing is mounted.
#   For example, a file is in the mount point, or there is no mount point.
# What helps: look for the mount point in /proc/self/mountinfo afterwards.
# Versions: Debian 12, fuse2fs 1.47.0-2+b2, libfuse2 2.9.9-6+b1, e2fsprogs 1.47.0-2+b2,
#   mount 2.38.1-5+deb12u3 (which has umount), with their libraries; Linux 6.18.
# Output seen:
#   an empty mount point: exit code 0, mounted: yes
#   a file in the mount point: exit code 0, mounted: no (fuse: mountpoint is not empty)
#   no mount point: exit code 0, mounted: no (fuse: bad mount point `FOLDER/mnt': No such ...)
#   an image without file system: exit code 2, mounted: no
# Needs: root, apt-get with the package lists of Debian 12, /dev/fuse.
# Exit codes: 0 if it is as above, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

packages=(
    {fuse2fs,e2fsprogs,libcom-err2,libext2fs2}=1.47.0-2+b2
    libfuse2=2.9.9-6+b1
    {mount,libblkid1,libmount1,libuuid1}=2.38.1-5+deb12u3
)

skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "not root"
for tool in apt-get dpkg-deb; do command -v "$tool" >/dev/null || skip "no $tool"; done
[ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "/dev/fuse cannot be used"

folder=$(mktemp -d)
clean_up() {
    cd /
    umount "$folder/mnt" 2>/dev/null || true
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
for tool in fuse2fs mkfs.ext4 umount; do
    [[ $(command -v "$tool") == "$folder"/* ]] || skip "$tool cannot run from $folder"
done
export MKE2FS_CONFIG=$folder/root/etc/mke2fs.conf

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
