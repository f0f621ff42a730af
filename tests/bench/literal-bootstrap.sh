#!/bin/bash
# The straightforward user-data, for comparison: all packages, then Tailscale, then SSM, then the units, one after another.
# The benchmark fills the three heredocs with the files of embedded/heartbeat/.
set -euo pipefail
exec > >(tee -a /var/log/m8trx-bootstrap.log) 2>&1
export DEBIAN_FRONTEND=noninteractive

imds=http://169.254.169.254/latest
token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' $imds/api/token)
metadata() { curl -fsS -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/$1"; }
customer=$(metadata tags/instance/Customer)
region=$(metadata placement/region)
instance_id=$(metadata instance-id)
[[ $customer =~ ^cust_[a-z0-9_]+$ ]]
name=${customer#cust_}

apt-get -qq update
apt-get -qq -y install --no-install-recommends awscli curl ca-certificates
apt-get -qq -y install jq docker.io

curl -fsSL https://tailscale.com/install.sh -o /run/install.sh
sh /run/install.sh
parameter() { aws ssm get-parameter --region "$region" --name "$1" --with-decryption --query Parameter.Value --output text; }
umask 077
mkdir /run/m8trx
parameter "/m8trx/$customer/tailscale-auth-key" >/run/m8trx/key
tailscale up --auth-key=file:/run/m8trx/key --ssh --advertise-tags="tag:m8trx-cust-${name//_/-}" --hostname="$name-$instance_id" --timeout=60s
rm -r /run/m8trx

mkdir -p /etc/m8trx
printf 'CUSTOMER=%s\nREGION=%s\nINSTANCE_ID=%s\n' "$customer" "$region" "$instance_id" >/etc/m8trx/host.env
url=$(parameter /m8trx/brain-url)
key=$(parameter "/m8trx/$customer/brain-key")
printf 'BRAIN_URL=%s\nBRAIN_API_KEY=%s\n' "$url" "$key" >/etc/m8trx/brain.env
umask 022

cat >/usr/local/bin/m8trx-brain-heartbeat <<'HEARTBEAT_SH'
HEARTBEAT_SH
chmod 755 /usr/local/bin/m8trx-brain-heartbeat
cat >/etc/systemd/system/m8trx-brain-heartbeat.service <<'HEARTBEAT_SERVICE'
HEARTBEAT_SERVICE
cat >/etc/systemd/system/m8trx-brain-heartbeat.timer <<'HEARTBEAT_TIMER'
HEARTBEAT_TIMER
systemctl daemon-reload
systemctl enable --now m8trx-brain-heartbeat.timer
systemctl start m8trx-brain-heartbeat.service
echo "m8trx-bootstrap: complete for $customer"
