#!/usr/bin/env bash
# Guess: when umount and losetup --detach have ended with exit code 0, the volume is free, and
#   if not, e2fsck refuses to touch it.
# Behaviour: both exit codes are 0 while another mount namespace, such as a container's, has
#   the mount, too, and writes to it. /proc/self/mountinfo has no such mount any more, the
#   device stays attached until the last close, and the writer goes on. e2fsck -p refuses the
#   device, but repairs the image file behind it: it replays the journal of the file system
#   that is mounted.
# What helps: wait until /sys/block/loopN/loop/backing_file is gone, and check the device, not
#   the image.
# Versions: Debian 12, mount and util-linux 2.38.1-5+deb12u3, e2fsprogs 1.47.0-2+b2, with their
#   libraries; Linux 6.18.
# Output seen:
#   umount: exit code 0, in mountinfo: no
#   losetup --detach: exit code 0, attached: yes
#   the other mount namespace: wrote another line
#   e2fsck -p on the device: exit code 8 (is in use)
#   e2fsck -p on the image: exit code 0 (recovering journal)
#   after the other's end: attached: no
# Needs: root, apt-get with the package lists of Debian 12, a free loop device, ext4.
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

folder=$(mktemp -d) writer=
devices() { losetup --associated "$folder/image" --noheadings --output NAME; }
clean_up() {
    exec 9>&-
    if [ -n "$writer" ]; then wait "$writer" || true; fi
    umount "$folder/mnt" 2>/dev/null || true
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
for tool in losetup mount umount unshare mkfs.ext4 e2fsck; do
    [[ $(command -v "$tool") == "$folder"/* ]] || skip "$tool cannot run from $folder"
done
export MKE2FS_CONFIG=$folder/root/etc/mke2fs.conf

changed() { echo "changed: $1"; exit 1; }

truncate -s 16M "$folder/image"
mkfs.ext4 -q -F "$folder/image"
mkdir "$folder/mnt"
device=$(losetup --find --show "$folder/image" 2>&1) || skip "no loop device: $device"
why=$(mount -t ext4 "$device" "$folder/mnt" 2>&1) || skip "no mount: $why"

# Appends a line for each line that it reads, until there are no more.
mkfifo "$folder/orders" "$folder/answers"
unshare --mount sh -c 'while read -r line; do echo "$line" >>"$1" && echo written; done' \
    writer "$folder/mnt/log" <"$folder/orders" >"$folder/answers" &
writer=$!
exec 9>"$folder/orders" 8<"$folder/answers"
write_a_line() { echo line >&9 && read -r -t 60 answer <&8 && [ "$answer" = written ]; }
write_a_line || skip "no other mount namespace"

code=0 mounted=no
umount "$folder/mnt" || code=$?
if grep -qF " $folder/mnt " /proc/self/mountinfo; then mounted=yes; fi
echo "umount: exit code $code, in mountinfo: $mounted"
[ "$code $mounted" = "0 no" ] || changed "umount"

code=0
losetup --detach "$device" || code=$?
[ -n "$(devices)" ] && attached=yes || attached=no
echo "losetup --detach: exit code $code, attached: $attached"
[ "$code $attached" = "0 yes" ] || changed "losetup --detach"

write_a_line || changed "the other mount namespace cannot write any more"
echo "the other mount namespace: wrote another line"

code=0
said=$(e2fsck -p "$device" 2>&1) || code=$?
[[ $said == *"is in use"* ]] && [ "$code" = 8 ] || changed "e2fsck on the device: $code: $said"
echo "e2fsck -p on the device: exit code $code (is in use)"

code=0
said=$(e2fsck -p "$folder/image" 2>&1) || code=$?
[[ $said == *"recovering journal"* ]] && [ "$code" -le 1 ] || changed "on the image: $code: $said"
echo "e2fsck -p on the image: exit code $code (recovering journal)"

exec 9>&-
wait "$writer"
writer=
for _ in $(seq 100); do
    [ -n "$(devices)" ] || break
    sleep 0.1
done
[ -z "$(devices)" ] || changed "it stays attached after the other's end"
echo "after the other's end: attached: no"
echo "as described"
