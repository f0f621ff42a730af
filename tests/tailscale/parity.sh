# shellcheck shell=bash
# The same commands for the real client and for a stand-in: run by bash with KEY (a file that holds a good auth key), BAD (one that
# holds an unknown one), TAG and `tailscale` at hand. Prints a block a step: `== NAME`, what was said, `-- exit code`.
step() {
  local name=$1 code=0
  shift
  echo "== $name"
  timeout 40 "$@" 2>&1 </dev/null || code=$?
  echo "-- $code"
}
# Of the client's state, what our programs read.
facts() {
  step "$1: facts" sh -c "tailscale status --json --peers=false >$KEY.status"
  grep -oE '"(BackendState|HaveNodeKey|Online)": *[^,]*|"(Health|Tags)": *(null|\[\])?'  "$KEY.status" | tr -s ' '
}

step 'new: status' tailscale status
facts 'new'
step 'new: ip' tailscale ip -4
step 'new: down' tailscale down
step 'unknown subcommand' tailscale frobnicate
step 'up: unknown flag' tailscale up --frobnicate
step 'up: malformed tag' tailscale up --auth-key="file:$KEY" --advertise-tags=tag:m8trx-cust-b4_smoke --timeout=10s
step 'up: tag without its prefix' tailscale up --auth-key="file:$KEY" --advertise-tags=b4 --timeout=10s
step 'up: no such key file' tailscale up --auth-key=file:/run/none --advertise-tags="$TAG" --timeout=10s
step 'up: malformed timeout' tailscale up --auth-key="file:$KEY" --timeout=ten
step 'up: malformed boolean' tailscale up --ssh=maybe
step 'up: unknown key' tailscale up --reset --auth-key="file:$BAD" --ssh --advertise-tags="$TAG" --hostname=parity --timeout=10s
facts 'up: unknown key'
step 'up: another tag' tailscale up --reset --auth-key="file:$KEY" --ssh --advertise-tags=tag:m8trx-cust-other --hostname=parity --timeout=10s
step 'up' tailscale up --reset --auth-key="file:$KEY" --ssh --advertise-tags="$TAG" --hostname=parity --timeout=30s
facts 'joined'
step 'joined: status' tailscale status
step 'joined: ip' tailscale ip -4
step 'joined: up again' tailscale up --reset --auth-key="file:$KEY" --ssh --advertise-tags="$TAG" --hostname=parity --timeout=30s
step 'down' tailscale down
step 'down: status' tailscale status
facts 'down'
step 'down: ip' tailscale ip -4
step 'down: up again' tailscale up --reset --auth-key="file:$KEY" --ssh --advertise-tags="$TAG" --hostname=parity --timeout=30s
sleep 5
facts 'up again'
step 'logout' tailscale logout
step 'logout: status' tailscale status
facts 'logout'
step 'logout twice' tailscale logout
