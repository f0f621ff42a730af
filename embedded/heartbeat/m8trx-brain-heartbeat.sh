#!/bin/bash
# Sends one heartbeat. When the brain is away or refuses the key, and every few minutes besides, looks whether SSM holds another
# URL or key, and keeps what the brain takes: a moved brain or a rotated key needs no new host.
set -euo pipefail
export LC_ALL=C
umask 077
DIR=/etc/m8trx
URL_PATTERN='^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?$'
# Nothing that a shell expands: others source brain.env.
KEY_PATTERN='^[A-Za-z0-9._~+/=:@%-]+$'
error='' verdict='no heartbeat' status=1

die() {
  echo "$verdict: ${problem//[[:cntrl:]]/ }${1:-}" >&2
  exit $status
}

# The files are read, never executed.
setting() { sed -n "s/^$1=//p" $DIR/*.env | tail -n 1; }

event() {
  cat <<JSON
{"event_type":"heartbeat","ts":"$(date -u +%FT%T.%3NZ)","payload":{"hostname":"${HOSTNAME//[^[:alnum:]._-]/}",\
"instance_id":"$(setting INSTANCE_ID)","uptime_s":$(cut -d. -f1 /proc/uptime),"key":"$(printf %s "$key" | sha256sum | cut -c 1-8)",\
"bootstrap":"$(setting BOOTSTRAP)","scripts":"$(setting SCRIPTS)","agent":"m8trx-brain-heartbeat/3"}}
JSON
}

# Returns 1 when another URL or key could help. The key is no argument: ps shows those.
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
  REPLY=$(timeout 30 aws ssm get-parameter --region "$(setting REGION)" --name "$1" --with-decryption \
    --query Parameter.Value --output text 2>"$error" </dev/null) ||
    die "; $1 not read from SSM: $(tr -s '[:cntrl:]' ' ' <"$error")"
  [[ $REPLY =~ $2 ]] || die "; the value of $1 is malformed"
}

# may_follow FIRST-URL URL: to a host in the tailnet or the first brain's domain. Who can write the parameter gets no key.
may_follow() {
  local first host shared='\.(amazonaws|cloudfront|fly|herokuapp|on|run|ts)\.[a-z]+$' tailnet
  read -r first host < <(sed -E 's#https?://(\[[^]]*]|[^:/ ]*)[^ ]*#\1#g' <<<"${1,,} ${2,,}")
  # A name in a domain where anyone can have one counts whole.
  [[ $first =~ $shared || ! $first =~ [^.]+\.([^.]{1,3}\.[a-z]{2}|[a-z][^.]*)$ ]] || first=${BASH_REMATCH[0]}
  tailnet=$(setting TAILNET)
  # What begins with a digit may be an address.
  [[ .$host == *".$first" || .$host == *".${tailnet:-$first}" ||
    $host =~ ^([a-z][a-z0-9-]*|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])(\.[0-9]+){2}|\[fd7a:115c:a1e0:.*)$ ]]
}

follow() {
  local old="$url $key" new=$DIR/.brain holds='SSM holds the same URL and key'
  error=$(mktemp)
  parameter /m8trx/brain-url "$URL_PATTERN"
  if may_follow "$(setting FIRST_URL)" "$REPLY"; then
    url=${REPLY%/}
  else
    holds="not followed to $REPLY, outside the tailnet and the first brain's domain: that takes a new host"
    echo "$holds"
  fi
  parameter "/m8trx/$(setting CUSTOMER)/brain-key" "$KEY_PATTERN"
  key=$REPLY
  if [[ "$url $key" == "$old" ]]; then
    ((status == 0)) || die "; $holds"
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
  trap 'rm -f "$error"' EXIT
  exec 9<$DIR
  flock -n 9 || { echo 'another heartbeat is under way'; return; }
  url=$(setting BRAIN_URL) key=$(setting BRAIN_API_KEY) || :
  problem='brain.env holds no valid URL and key'
  if [[ $url =~ $URL_PATTERN && $key =~ $KEY_PATTERN ]]; then
    outcome=0
    send || outcome=$?
  fi
  ((outcome < 2)) || die
  # The time of brain.env is that of the last look.
  if ((outcome || EPOCHSECONDS - $(stat -c %Y $DIR/brain.env) >= ${LOOK_EVERY_S:-240})); then follow; fi
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main
