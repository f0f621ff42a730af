#!/bin/bash
# Builds Tailscale's client and daemon, headscale (an open control server) and a reader of policy files around Tailscale's own
# parser, once, from Go modules, and prints the folder they are in. It stays in the user's cache; a change of this file builds
# anew. Needs go. The versions and the checksum of everything stand here and nowhere else.
set -euo pipefail

TAILSCALE=v1.98.10
HEADSCALE=v0.29.1 HEADSCALE_SUM='h1:XVnMJA35OifMINFIvkNzEjqcgrmIyd5QRv+FcjXiSrk='
# headscale refuses every tag that a node asks for beside an auth key; Tailscale's service lets a key's own tags pass, and
# our hosts ask for those. One condition of the copy is changed so that headscale does the same.
PATCHED=hscontrol/state/state.go
BEFORE='if params.PreAuthKey != nil && params.Hostinfo != nil && len(params.Hostinfo.RequestTags) > 0 {'
AFTER='if params.PreAuthKey != nil \&\& params.Hostinfo != nil \&\& slices.ContainsFunc(params.Hostinfo.RequestTags, func(tag string) bool { return !slices.Contains(params.PreAuthKey.Tags, tag) }) {'

tools="${XDG_CACHE_HOME:-$HOME/.cache}/m8trx/tools"
made="$tools/tailscale-$(sha256sum "${BASH_SOURCE[0]}" | cut -c 1-16)"
if [[ -d $made ]]; then
  echo "$made"
  exit
fi
mkdir -p "$tools"
exec 9>"$tools/tailscale.lock"
flock 9
if [[ -d $made ]]; then
  echo "$made"
  exit
fi
rm -rf "$tools"/tailscale-*
scratch=$(mktemp -d "$tools/new.XXXXXXXX")
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
field() { sed -nE "s/^[[:space:]]*\"$1\": \"(.*)\",?$/\1/p" <<<"$module"; }

GOBIN="$scratch/bin" nice go install "tailscale.com/cmd/tailscale@$TAILSCALE" "tailscale.com/cmd/tailscaled@$TAILSCALE" >&2

# The unit that its package installs.
module=$(go mod download -json "tailscale.com@$TAILSCALE")
install -m 644 "$(field Dir)"/cmd/tailscaled/tailscaled.{service,defaults} "$scratch/bin"

# `go install` of headscale asks for the newest version of its module first; a download does not.
module=$(go mod download -json "github.com/juanfont/headscale@$HEADSCALE")
if [[ $(field Sum) != "$HEADSCALE_SUM" ]]; then
  echo "headscale $HEADSCALE has the checksum $(field Sum), not the expected one" >&2
  exit 1
fi
cp -r "$(field Dir)" "$scratch/headscale"
chmod -R u+w "$scratch/headscale"
cd "$scratch/headscale"
found=$(grep -cF "$BEFORE" $PATCHED) || true
if [[ $found != 1 ]]; then
  echo "headscale $HEADSCALE: the condition to change stands $found times in $PATCHED, not once" >&2
  exit 1
fi
line=$(grep -nF "$BEFORE" $PATCHED | cut -d: -f1)
sed -i "${line}s/.*/	$AFTER/" $PATCHED
nice go build -o "$scratch/bin/headscale" ./cmd/headscale >&2

echo "Tailscale ${TAILSCALE#v}, headscale ${HEADSCALE#v} with one condition changed: a node may ask for the tags of its auth key ($PATCHED:$line)" >"$scratch/bin/about"
mv "$scratch/bin" "$made"
echo "$made"
