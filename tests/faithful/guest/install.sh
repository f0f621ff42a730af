#!/bin/sh
# Stand-in for https://tailscale.com/install.sh: installs the stand-ins of tailscale and tailscaled and starts the daemon.
set -eu

main() {
  curl -fsSL https://pkgs.tailscale.com/tailscale -o /usr/bin/tailscale
  chmod 755 /usr/bin/tailscale
  ln -sf /usr/bin/tailscale /usr/sbin/tailscaled
  cat >/lib/systemd/system/tailscaled.service <<'UNIT'
[Unit]
Description=Stand-in of the Tailscale node agent
After=network-online.target

[Service]
Type=notify
ExecStart=/usr/sbin/tailscaled

[Install]
WantedBy=multi-user.target
UNIT
  systemctl daemon-reload
  systemctl enable --now tailscaled
}

main
