#!/bin/bash
# Sends one heartbeat. When the brain cannot be reached or refuses the key, reads URL and key from SSM again and, if they
# changed, tries once more: a moved brain or a rotated key needs no new host.
set -euo pipefail
export LC_ALL=C
umask 077
DIR=/etc/m8trx
URL_PATTERN='^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?$'
KEY_PATTERN='^[A-Za-z0-9._~+/=:@%-]+$'
url='' key='' problem='' scratch=''

die() {
  echo "no heartbeat: ${problem//[[:cntrl:]]/ }${1:-}" >&2
  exit 1
}

# The files are read, never executed.
setting() { sed -n "s/^$2=//p" "$DIR/$1" | tail -n 1; }

quoted() {
  local text=${1//[^ -~]/?}
  text=${text//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

event() {
  printf '{"event_type":"heartbeat","ts":"%s","payload":{"hostname":%s,"instance_id":%s,"uptime_s":%s,"agent":"%s"}}' \
    "$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)" "$(quoted "$(uname -n)")" "$(quoted "$(setting host.env INSTANCE_ID)")" \
    "$(cut -d. -f1 /proc/uptime)" m8trx-brain-heartbeat/1
}

# Returns 1 when another URL or key could help, 2 when not. The key is no argument: ps shows those.
send() {
  local answer
  answer=$(curl -qsS --globoff --connect-timeout 10 --max-time 20 -o /dev/null -w ' status=%{http_code}' \
    -H @- -H 'Content-Type: application/json' --data-raw "$(event)" "$url/v1/events" \
    2>&1 <<<"Authorization: Bearer $key") || true
  case $answer in
    *status=2*) echo "accepted by $url" ;;
    *status=40[13]*) problem="the brain at $url refused the key:$answer"; return 1 ;;
    *status=000*) problem="no connection to the brain at $url: $answer"; return 1 ;;
    *) problem="unexpected answer of the brain at $url:$answer"; return 2 ;;
  esac
}

parameter() {
  timeout 30 aws ssm get-parameter --region "$(setting host.env REGION)" --name "$1" --with-decryption \
    --query Parameter.Value --output text >"$scratch/value" 2>"$scratch/error" </dev/null ||
    die "; $1 not read from SSM: $(tr -s '[:cntrl:]' ' ' <"$scratch/error")"
  REPLY=$(<"$scratch/value")
  [[ $REPLY =~ $2 ]] || die "; the value of $1 is malformed"
}

refresh() {
  local old="$url $key"
  scratch=$(mktemp -d) || die '; no room for temporary files'
  parameter /m8trx/brain-url "$URL_PATTERN"
  url=${REPLY%/}
  parameter "/m8trx/$(setting host.env CUSTOMER)/brain-key" "$KEY_PATTERN"
  key=$REPLY
  [[ "$url $key" != "$old" ]] || die '; SSM holds the same URL and key'
  if ! printf 'BRAIN_URL=%s\nBRAIN_API_KEY=%s\n' "$url" "$key" >$DIR/.brain.env || ! mv -f $DIR/.brain.env $DIR/brain.env; then
    rm -f $DIR/.brain.env
    die '; brain.env could not be written'
  fi
  echo 'SSM holds a newer URL or key: brain.env rewritten'
}

main() {
  local outcome=1
  trap 'rm -rf "$scratch"' EXIT
  exec 9<$DIR
  flock -n 9 || { echo 'another beat is under way'; return; }
  url=$(setting brain.env BRAIN_URL) || true
  key=$(setting brain.env BRAIN_API_KEY) || true
  problem='brain.env holds no valid URL and key'
  if [[ $url =~ $URL_PATTERN && $key =~ $KEY_PATTERN ]]; then
    outcome=0
    send || outcome=$?
  fi
  if ((outcome == 1)); then
    refresh
    outcome=0
    send || outcome=$?
  fi
  ((outcome == 0)) || die
}

main
