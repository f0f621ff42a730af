#!/bin/sh
# The sandbox's https://tailscale.com/install.sh. It does on a host of the sandbox what the real one does on Ubuntu: adds
# Tailscale's package repository and installs the package, which starts tailscaled.

set -eu

main() {
	if [ "$(id -u)" -ne 0 ]; then
		echo "This installer needs to run commands as root." >&2
		exit 1
	fi
	# shellcheck source=/dev/null
	. /etc/os-release
	if [ "${ID:-}" != ubuntu ] && [ "${ID:-}" != debian ]; then
		echo "Couldn't determine what kind of Linux is running." >&2
		exit 1
	fi
	echo "Installing Tailscale for $ID $VERSION_CODENAME, using method apt"
	echo "deb https://pkgs.tailscale.com/stable/$ID $VERSION_CODENAME main" >/etc/apt/sources.list.d/tailscale.list
	export DEBIAN_FRONTEND=noninteractive
	apt-get update
	apt-get install -y tailscale
	echo "Installation complete! Log in to start using Tailscale by running:"
	echo
	echo "tailscale up"
}

main
