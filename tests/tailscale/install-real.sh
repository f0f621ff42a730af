#!/bin/sh
# In place of https://tailscale.com/install.sh: installs what the package of Tailscale installs, with the real client and daemon.
set -eu

main() {
  command -v iptables >/dev/null || apt-get install -y -qq --no-install-recommends iptables
  for name in tailscale tailscaled tailscaled.service tailscaled.defaults; do
    curl -fsSL "https://pkgs.tailscale.com/$name" -o "/run/$name"
  done
  install -m 755 /run/tailscale /usr/bin/tailscale
  install -m 755 /run/tailscaled /usr/sbin/tailscaled
  install -m 644 /run/tailscaled.defaults /etc/default/tailscaled
  echo TS_NO_LOGS_NO_SUPPORT=true >>/etc/default/tailscaled
  install -m 644 /run/tailscaled.service /lib/systemd/system/tailscaled.service
  rm /run/tailscale /run/tailscaled /run/tailscaled.defaults /run/tailscaled.service
  systemctl daemon-reload
  systemctl enable --now tailscaled
}

main
