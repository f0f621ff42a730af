#!/bin/bash
# Sends one heartbeat. When the brain cannot be reached or refuses the key, and every few minutes besides, looks whether SSM
# holds another URL or key, and keeps what the brain takes: a moved brain or a rotated key needs no new host.
set -euo pipefail
export LC_ALL=C
umask 077
DIR=/etc/m8trx
URL_PATTERN='^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?$'
KEY_PATTERN='^[A-Za-z0-9._~+/=:@%-]+$'
scratch='' verdict='no heartbeat' status=1

die() {
  echo "$verdict: ${problem//[[:cntrl:]]/ }${1:-}" >&2
  exit $status
}

# The files are read, never executed.
setting() { sed -n "s/^$2=//p" "$DIR/$1" | tail -n 1; }

quoted() {
  local text=${1//[^ -~]/?}
  text=${text//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

event() {
  printf '{"event_type":"heartbeat","ts":"%s","payload":{"hostname":%s,"instance_id":%s,"uptime_s":%s,"key":"%s","agent":"%s"}}' \
    "$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)" "$(quoted "$(uname -n)")" "$(quoted "$(setting host.env INSTANCE_ID)")" \
    "$(cut -d. -f1 /proc/uptime)" "$(printf %s "$key" | sha256sum | cut -c 1-8)" m8trx-brain-heartbeat/2
}

# Returns 1 when another URL or key could help, 2 when not. The key is no argument: ps shows those.
send() {
  local answer
  answer=$(curl -qsS --globoff --connect-timeout 10 --max-time 20 -o /dev/null -w ' status=%{http_code}' \
    -H @- -H 'Content-Type: application/json' --data-raw "$(event)" "$url/v1/events" \
    2>&1 <<<"Authorization: Bearer $key") || true
  case $answer in
    *status=2*) echo "accepted by $url"; verdict='brain.env kept' status=0 problem='it is accepted' ;;
    *status=40[13]*) problem="the brain at $url refused the key:$answer"; return 1 ;;
    *status=000*) problem="no connection to the brain at $url: $answer"; return 1 ;;
    *) problem="unexpected answer of the brain at $url:$answer"; return 2 ;;
  esac
}

parameter() {
  REPLY=$(timeout 30 aws ssm get-parameter --region "$(setting host.env REGION)" --name "$1" --with-decryption \
    --query Parameter.Value --output text 2>"$scratch" </dev/null) ||
    die "; $1 not read from SSM: $(tr -s '[:cntrl:]' ' ' <"$scratch")"
  [[ $REPLY =~ $2 ]] || die "; the value of $1 is malformed"
}

follow() {
  local old="$url $key" new=$DIR/.brain.env
  scratch=$(mktemp)
  parameter /m8trx/brain-url "$URL_PATTERN"
  url=${REPLY%/}
  parameter "/m8trx/$(setting host.env CUSTOMER)/brain-key" "$KEY_PATTERN"
  key=$REPLY
  if [[ "$url $key" == "$old" ]]; then
    ((status == 0)) || die '; SSM holds the same URL and key'
    touch $DIR/brain.env
    return
  fi
  send || die
  { printf 'BRAIN_URL=%s\nBRAIN_API_KEY=%s\n' "$url" "$key" >$new && mv -f $new $DIR/brain.env; } ||
    { rm -f $new; die '; brain.env could not be written'; }
  echo 'SSM holds a newer URL or key: brain.env rewritten'
}

main() {
  local outcome=1
  trap 'rm -f "$scratch"' EXIT
  exec 9<$DIR
  flock -n 9 || { echo 'another beat is under way'; return; }
  url=$(setting brain.env BRAIN_URL) || :
  key=$(setting brain.env BRAIN_API_KEY) || :
  problem='brain.env holds no valid URL and key'
  if [[ $url =~ $URL_PATTERN && $key =~ $KEY_PATTERN ]]; then
    outcome=0
    send || outcome=$?
  fi
  ((outcome < 2)) || die
  # The time of brain.env is that of the last look.
  if ((outcome || EPOCHSECONDS - $(stat -c %Y $DIR/brain.env) >= ${LOOK_EVERY_S:-240})); then follow; fi
}

main
