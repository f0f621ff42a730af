#!/bin/bash
# Makes the root filesystem that the faithful hosts boot from, once, and prints its path. It stays in the user's cache; a
# change of this file makes a new one. Needs root, mmdebstrap and the Debian archive.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/m8trx"
rootfs="$cache/rootfs-$(sha256sum "${BASH_SOURCE[0]}" | cut -c 1-16)"
if [[ -d $rootfs ]]; then
  echo "$rootfs"
  exit
fi
mkdir -p "$cache"
exec 9>"$cache/rootfs.lock"
flock 9
if [[ -d $rootfs ]]; then
  echo "$rootfs"
  exit
fi
rm -rf "$cache"/rootfs-*
new="$rootfs.new"
# What an Ubuntu or Debian cloud image has; awscli, jq, docker.io and Tailscale are left to the user-data.
mmdebstrap --quiet --variant=minbase \
  --include=systemd,systemd-sysv,dbus,cloud-init,curl,ca-certificates,iproute2,gpgv,sudo,procps,udev \
  bookworm "$new" 'deb http://deb.debian.org/debian bookworm main' >&2

# The EC2 data source, without the network set-up: the host has its addresses already.
cat >"$new/etc/cloud/cloud.cfg.d/99-m8trx.cfg" <<'CFG'
datasource_list: [Ec2]
datasource:
  Ec2:
    strict_id: false
    metadata_urls: ['http://169.254.169.254']
    max_wait: 10
    timeout: 5
network: {config: disabled}
# Generating a locale needs a package that the image has not; cloud-config.service would fail.
locale: false
CFG
echo 'policy: enabled' >"$new/etc/cloud/ds-identify.cfg"
# cloud-init speaks IMDSv2 only where it believes it is on AWS. A container has no such file in /sys, so it looks here.
echo ec2f0f0f-0000-4000-8000-000000000000 >"$new/etc/hypervisor-uuid"
sed -i 's#/sys/hypervisor/uuid#/etc/hypervisor-uuid#' "$new/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py"
grep -q /etc/hypervisor-uuid "$new/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py"
rm -rf "$new/usr/lib/python3/dist-packages/cloudinit/sources/__pycache__"

# Units that wait for a network of their own, and daemons that cannot run inside a container.
for unit in systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer systemd-timesyncd.service \
  getty.target console-getty.service docker.service docker.socket containerd.service apparmor.service; do
  ln -sf /dev/null "$new/etc/systemd/system/$unit"
done
echo 'deb http://deb.debian.org/debian bookworm main' >"$new/etc/apt/sources.list"
echo 'Acquire::http::Proxy "http://127.0.0.5:3142";' >"$new/etc/apt/apt.conf.d/01proxy"
rm -f "$new/etc/hostname" "$new/etc/resolv.conf"
: >"$new/etc/machine-id"
mv "$new" "$rootfs"
echo "$rootfs"
