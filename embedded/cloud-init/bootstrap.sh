#!/bin/bash
# User-data of a customer host: joins the tailnet, reads the brain's URL and key from SSM, starts the heartbeat.
# Holds no secret, prints none. Safe to run again.
set -Eeuo pipefail
export LC_ALL=C PATH="/usr/local/sbin:/usr/local/bin:$PATH" HOME="${HOME:-/root}"
LOG=/var/log/m8trx-bootstrap.log
IMDS=http://169.254.169.254/latest
URL_PATTERN='^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?$'
# Nothing that a shell expands: others source brain.env.
KEY_PATTERN='^[A-Za-z0-9._~+/=:@%-]+$'
line=0 reason='' apt_error='' scratch='' tee_pid=''
declare -A jobs=()

log() { echo "m8trx-bootstrap: $1"; }
fail() { reason=$1 line=${BASH_LINENO[0]}; exit 1; }
one_line() { tr -s '[:cntrl:]' ' ' <"$1" | cut -c 1-600; }

# The one place that reports a failure.
on_exit() {
  local status=$? job
  trap - ERR
  set +e
  for job in "${jobs[@]}"; do kill -- "-$job" 2>/dev/null; done
  rm -rf "$scratch"
  reason=${reason//[[:cntrl:]]/ }
  ((status == 0)) || log "FAILED $label line=$line exit=$status reason=${reason:-stopped}"
  # Let tee write the last lines, unless a daemon holds the pipe open.
  exec >/dev/null 2>&1
  timeout 2 tail -s 0.1 --pid="$tee_pid" -f /dev/null
  exit "$status"
}

# start JOB COMMAND…: in the background, as a process group that can be ended whole.
start() {
  set -m
  "${@:2}" &
  jobs[$1]=$!
  set +m
}

# put_file PATH MODE: standard input becomes the file, whole or not at all.
put_file() {
  { mkdir -p "${1%/*}" && (umask 077 && cat >"$1.new") && chmod "$2" "$1.new" && mv -f "$1.new" "$1"; } && return
  rm -f "$1.new"
  fail "$1 could not be written"
}

fetch() {
  curl -qfsSL --proto '=https' --connect-timeout 10 --max-time 300 --retry 4 --retry-all-errors -o "$2" "$1" 2>"$2.error"
}

valid_customer_id() { ((${#1} <= 64)) && [[ $1 =~ ^cust_[a-z0-9_]+$ ]]; }
# Tailscale refuses "_" in a tag, and an id holds no "-".
customer_tag() { local name=${1#cust_}; echo "tag:m8trx-cust-${name//_/-}"; }

apt_get() {
  local status=0
  apt-get -qq -y -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any -o Acquire::Languages=none "$@" 2>&1 |
    tee "$scratch/apt" || status=$?
  apt_error=$(sed -n '/^E: /{s///p;q}' "$scratch/apt")
  return "$status"
}

# Returns 1 when the archive has no such package; ends in failure otherwise.
apt_install() {
  local pause give_up=$((SECONDS + 300))
  for pause in 5 10 20 0; do
    if apt_get update && apt_get install "$@"; then return; fi
    [[ ! $apt_error =~ 'Unable to locate'|'no installation candidate' ]] || return 1
    if ((pause == 0 || SECONDS > give_up)); then break; fi
    log "apt-get failed, again in $pause s: $apt_error"
    sleep "$pause"
  done
  fail "apt-get install $* failed: $apt_error"
}

imds() { curl -qfsS --noproxy '*' --connect-timeout 2 --max-time 5 "$@" 2>&1; }

# metadata PATH: sets REPLY to the value, to its last byte; otherwise problem.
metadata() {
  problem=$(imds -H @- "$IMDS/meta-data/$1" <<<"X-aws-ec2-metadata-token: $token" && echo x) || return 1
  REPLY=${problem%x}
}

read_identity() {
  local token
  problem=$(imds -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' $IMDS/api/token) || return 1
  token=$problem
  metadata placement/region || return 1
  region=$REPLY
  metadata instance-id || return 1
  instance_id=$REPLY problem='malformed answer'
  [[ "$region $instance_id" =~ ^[a-z]+(-[a-z]+)+-[0-9]+\ i-[0-9a-f]+$ ]] || return 1
  if metadata tags/instance/Customer; then customer=$REPLY; return; fi
  [[ $problem == *'error: 404'* ]] || return 1
  if metadata tags/instance; then fail 'the instance has no Customer tag'; fi
  fail 'no tags in the metadata: launch with InstanceMetadataTags=enabled'
}

step_identity() {
  local problem='' give_up=$((SECONDS + 60))
  ((EUID == 0)) || fail 'it must run as root'
  scratch=$(mktemp -d /run/m8trx-bootstrap.XXXXXXXX)
  command -v curl >/dev/null || apt_install curl
  until read_identity; do
    ((SECONDS < give_up)) || fail "no metadata for a minute: $problem"
    sleep 2
  done
  valid_customer_id "$customer" || fail "the Customer tag is no customer id: $(printf '%.80q' "$customer")"
  log "$customer, $instance_id, $region"
}

# For Ubuntu 24.04. Its snap cannot run inside the hardened heartbeat service.
install_aws_cli() {
  local dir=/usr/local/src/aws-cli
  log 'no awscli in the archive: taking it from awscli.amazonaws.com'
  command -v unzip >/dev/null || apt_install unzip
  rm -rf $dir
  mkdir -p $dir
  fetch "https://awscli.amazonaws.com/awscli-exe-linux-$(uname -m).zip" $dir/zip ||
    fail "AWS CLI not downloaded: $(one_line $dir/zip.error)"
  unzip -q $dir/zip -d $dir
  $dir/aws/install --update
  rm -rf $dir
}

# Only what the heartbeat needs.
step_packages() {
  # For the Tailscale install script too, which neither waits for the lock nor retries.
  put_file /etc/apt/apt.conf.d/90m8trx 0644 <<<$'DPkg::Lock::Timeout "300";\nAcquire::Retries "3";'
  [[ -s /etc/ssl/certs/ca-certificates.crt ]] || apt_install ca-certificates
  command -v tailscale >/dev/null || start download fetch https://tailscale.com/install.sh "$scratch/install.sh"
  # Its recommendations are thirty packages of fonts and image formats.
  command -v aws >/dev/null || apt_install --no-install-recommends awscli || install_aws_cli
}

# Tries for two minutes, since IAM is eventually consistent; a missing parameter fails at once.
get_parameter() {
  local pause=2 give_up=$((SECONDS + 120)) error file=$scratch/${1##*/}
  umask 077
  until timeout 40 aws ssm get-parameter --region "$region" --name "$1" --with-decryption \
    --query Parameter.Value --output text >"$file" 2>"$file.error"; do
    error=$(one_line "$file.error")
    if [[ $error =~ ParameterNotFound|ValidationException|InvalidKeyId ]] || ((SECONDS + pause > give_up)); then return 1; fi
    log "$1 not read, again in $pause s: ${error:-no answer}"
    sleep "$pause"
    ((pause = pause < 16 ? pause * 2 : 16))
  done
}

# value NAME PATTERN FORM: sets REPLY to what the started get_parameter read.
value() {
  local lines file=$scratch/${1##*/}
  wait "${jobs[$1]}" || fail "$1 not read: $(one_line "$file.error")"
  mapfile -t lines <"$file"
  if ((${#lines[@]} != 1)) || ! [[ ${lines[0]} =~ $2 ]]; then fail "the value of $1 is not $3"; fi
  REPLY=${lines[0]}
}

tailscale_state() {
  local pattern='"BackendState": *"([A-Za-z]+)"'
  [[ ! $(tailscale status --json 2>/dev/null) =~ $pattern ]] || echo "${BASH_REMATCH[1]}"
}

join_tailnet() {
  local try name=${customer#cust_} key=/m8trx/$customer/tailscale-auth-key
  value "$key" '^tskey-auth-[A-Za-z0-9+/]+-[A-Za-z0-9+/-]+$' 'an auth key (tskey-auth-…)'
  name=${name//_/-}
  for try in 1 2 3; do
    if tailscale up --reset --auth-key="file:$scratch/${key##*/}" --ssh --advertise-tags="$(customer_tag "$customer")" \
      --hostname="${name:0:40}-$instance_id" --timeout=60s 2>&1 | tee "$scratch/up"; then break; fi
    if ((try == 3)) || grep -qE 'invalid key|not permitted|tag names|To approve' "$scratch/up"; then
      fail "tailscale up failed: $(grep . "$scratch/up" | tail -n 1)"
    fi
    sleep 5
  done
  rm "$scratch/${key##*/}"
  # "up" exits 0 all the same.
  [[ $(tailscale status 2>&1) != *'locked out'* ]] || fail 'this node is locked out by Tailnet Lock'
}

step_tailscale() {
  local try name script=$scratch/install.sh
  for name in brain-url "$customer/brain-key" "$customer/tailscale-auth-key"; do
    start "/m8trx/$name" get_parameter "/m8trx/$name"
  done
  if [[ -n ${jobs[download]:-} ]]; then
    wait "${jobs[download]}" || fail "Tailscale install script not downloaded: $(one_line "$script.error")"
    # It is one function, so no part of it is a valid script.
    if [[ $(head -c 2 "$script") != '#!' ]] || ! sh -n "$script"; then fail 'Tailscale install script not whole'; fi
    for try in 1 2 3; do
      if sh "$script" && command -v tailscale >/dev/null; then break; fi
      ((try < 3)) || fail 'Tailscale install script failed'
      sleep 5
    done
  fi
  if [[ $(tailscale_state) == Running ]]; then log 'already in the tailnet'; else join_tailnet; fi
}

step_parameters() {
  value /m8trx/brain-url "$URL_PATTERN" 'a plain http or https URL'
  brain_url=${REPLY%/}
  value "/m8trx/$customer/brain-key" "$KEY_PATTERN" 'one line of letters, digits and ._~+/=:@%-'
  brain_key=$REPLY
}

step_brain_env() {
  install -d -m 0700 /etc/m8trx
  put_file /etc/m8trx/host.env 0600 <<<"CUSTOMER=$customer"$'\n'"REGION=$region"$'\n'"INSTANCE_ID=$instance_id"
  put_file /etc/m8trx/brain.env 0600 <<<"BRAIN_URL=$brain_url"$'\n'"BRAIN_API_KEY=$brain_key"
}

# An ephemeral node is removed while its host is stopped: at every boot, join again if logged out.
rejoin() {
  local state key=/m8trx/$customer/tailscale-auth-key
  log() { echo "$1"; }
  fail() { echo "FAILED: $1"; exit 1; }
  scratch=$(mktemp -d /run/m8trx-join.XXXXXXXX)
  trap 'rm -rf "$scratch"' EXIT
  until state=$(tailscale_state) && [[ $state == NeedsLogin ]]; do
    if [[ $state =~ Running|Stopped ]]; then return; fi
    ((SECONDS < 120)) || fail "Tailscale is neither logged in nor out: $state"
    sleep 2
  done
  log 'Tailscale is logged out: joining again'
  start "$key" get_parameter "$key"
  join_tailnet
}

step_heartbeat_units() {
  put_file /usr/local/sbin/m8trx-tailscale-join 0755 < <(
    echo '#!/bin/bash'
    echo "set -euo pipefail; declare -A jobs; customer=$customer region=$region instance_id=$instance_id"
    declare -f one_line start customer_tag get_parameter value tailscale_state join_tailnet rejoin
    echo rejoin
  )
  put_file /etc/systemd/system/m8trx-tailscale-join.service 0644 <<<'[Unit]
Description=Join the tailnet again when logged out
Wants=network-online.target
After=network-online.target tailscaled.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/m8trx-tailscale-join
TimeoutStartSec=600
Restart=on-failure
RestartSec=60

[Install]
WantedBy=multi-user.target'
  # The files of heartbeat/, byte for byte.
  put_file /usr/local/bin/m8trx-brain-heartbeat 0755 <<'HEARTBEAT_SH'
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
HEARTBEAT_SH
  put_file /etc/systemd/system/m8trx-brain-heartbeat.service 0644 <<'HEARTBEAT_SERVICE'
[Unit]
Description=Heartbeat of this host to the m8trx brain
Wants=network-online.target
After=network-online.target tailscaled.service m8trx-tailscale-join.service

[Service]
Type=oneshot
ExecStart=/usr/local/bin/m8trx-brain-heartbeat
TimeoutStartSec=150
# The AWS command line may want to write to its home.
RuntimeDirectory=m8trx-brain-heartbeat
Environment=HOME=/run/m8trx-brain-heartbeat
ProtectSystem=strict
ReadWritePaths=/etc/m8trx
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictSUIDSGID=yes
HEARTBEAT_SERVICE
  put_file /etc/systemd/system/m8trx-brain-heartbeat.timer 0644 <<'HEARTBEAT_TIMER'
[Unit]
Description=Heartbeat of this host to the m8trx brain

[Timer]
OnBootSec=5s
OnUnitActiveSec=5min
# Hosts that were started together drift apart.
RandomizedDelaySec=20s
AccuracySec=1s

[Install]
WantedBy=timers.target
HEARTBEAT_TIMER
}

step_heartbeat() {
  local pause journal=''
  systemctl daemon-reload
  systemctl enable m8trx-tailscale-join.service
  systemctl enable --now m8trx-brain-heartbeat.timer
  for pause in 2 4 8 16 0; do
    if systemctl start m8trx-brain-heartbeat.service; then return; fi
    sleep 1 # the journal may lag
    journal=$(journalctl -u m8trx-brain-heartbeat.service -n 20 --no-pager -o cat | grep '^no heartbeat' | tail -n 1) || true
    log "$journal"
    if [[ $journal == *'refused the key'* ]]; then break; fi
    sleep "$pause"
  done
  fail "$journal"
}

main() {
  local name number=0 rest=(jq)
  # In BASH_COMMAND no variable is expanded.
  trap 'line=$LINENO reason=${reason:-command failed: $BASH_COMMAND}' ERR
  trap on_exit EXIT
  umask 022
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
  exec > >(exec tee -a $LOG) 2>&1
  tee_pid=$!
  for name in identity packages tailscale parameters brain-env heartbeat-units heartbeat; do
    label="step=$((++number)) name=$name"
    log "step $number/7 $name"
    "step_${name//-/_}"
  done
  log 'first heartbeat accepted'
  label='step=2 name=packages'
  command -v docker >/dev/null || rest+=(docker.io)
  apt_install "${rest[@]}" || fail "$apt_error"
  log "complete for $customer"
}

if [[ ${BASH_SOURCE[0]:-$0} == "$0" ]]; then
  main </dev/null
fi
