//! The first heartbeat. The texts are those of m8trx-brain-heartbeat.

use super::Advice::{Do, Run};
use super::Cause;
use crate::diagnosis::FIRST_HEARTBEAT;

const AT: &[&str] = &["heartbeat"];

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "brain-unreachable",
        variant: "proxy",
        at: AT,
        shows: &[
            r"no connection to the brain at (?<url>\S+): .*(?:from proxy|CONNECT tunnel failed|Could not resolve proxy)",
            r"unexpected answer of the brain at (?<url>\S+): status=407",
        ],
        what: "the host asks a proxy for the brain at {url}, and the proxy does not connect it; the brain is in the tailnet, where no proxy belongs",
        remedy: &[
            Do(
                "Take the proxy's settings out of the image, or add the brain's name to NO_PROXY. On the host:",
            ),
            Run(
                "env | grep -i proxy; systemctl show-environment | grep -i proxy; grep -i proxy /etc/environment",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "brain-name-unknown",
        at: AT,
        shows: &[r"no connection to the brain at (?<url>\S+): .*curl: \(6\)"],
        what: "the host cannot resolve the brain's name ({url})",
        remedy: &[
            Do(
                "MagicDNS must be on in the tailnet (https://login.tailscale.com/admin/dns), the brain's machine must have this name, and the stored URL must be right:",
            ),
            Run("tailscale status | grep -i brain"),
            Run(
                "aws ssm get-parameter --region {region} --name /m8trx/brain-url --query Parameter.Value --output text",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "brain-tls",
        at: AT,
        shows: &[
            r"no connection to the brain at (?<url>\S+): .*curl: \((?:35|51|58|60|77|83|91)\)",
        ],
        what: "the host does not trust the certificate of the brain at {url}",
        remedy: &[
            Do(
                "Within the tailnet http:// is enough, Tailscale encrypts; otherwise the brain needs a certificate for that very name (`tailscale cert` makes one). What it shows now:",
            ),
            Run("curl -svo /dev/null {url} 2>&1 | grep -E 'subject|issuer|expire|SSL'"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "brain-unreachable",
        at: AT,
        shows: &[
            r"no connection to the brain at (?<url>\S+): .*curl: \((?:7|16|18|28|52|55|56|92)\)",
        ],
        what: "the host is in the tailnet, but gets no connection to the brain at {url}",
        remedy: &[
            Do("See whether the brain answers you:"),
            Run("curl -sSi -m 10 {url}/v1/events | head -n 1"),
            Do(
                "If it does, the tailnet's policy file does not let {tag} reach it: a grant from {tag} to the brain's tag and port is missing (https://login.tailscale.com/admin/acls/file). If it does not, the brain is down, or the stored URL is wrong:",
            ),
            Run(
                "aws ssm get-parameter --region {region} --name /m8trx/brain-url --query Parameter.Value --output text",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "brain-key-refused",
        at: AT,
        shows: &[r"the brain at (?<url>\S+) refused the key: status=(?<status>40[13])"],
        what: "the brain at {url} refuses the customer's key (HTTP {status})",
        remedy: &[
            Do(
                "The key was revoked, or it is of another brain. Delete the stored one, and a new one is minted and stored:",
            ),
            Run("aws ssm delete-parameter --region {region} --name {brain_key}"),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "brain-error",
        variant: "redirect",
        at: AT,
        shows: &[r"unexpected answer of the brain at (?<url>\S+): status=(?<status>3\d\d)"],
        what: "the brain's URL {url} answers with a redirect (HTTP {status}), which a heartbeat does not follow: it is not the final URL",
        remedy: &[
            Do(
                "Where it leads (https instead of http, another name, or a login page that stands before the brain):",
            ),
            Run("curl -sSI -m 10 {url}/v1/events | grep -iE '^(HTTP|location)'"),
            Do("Store the final URL; hosts follow it within minutes:"),
            Run("m8trx params put /m8trx/brain-url --region {region}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "brain-error",
        at: AT,
        shows: &[r"unexpected answer of the brain at (?<url>\S+): status=(?<status>\d+)"],
        what: "the brain at {url} answers a heartbeat with HTTP {status}",
        remedy: &[
            Do(
                "404 and 405 mean that the URL is not the brain's (or lacks its prefix); 5xx that the brain itself fails: look at its log. The stored URL:",
            ),
            Run(
                "aws ssm get-parameter --region {region} --name /m8trx/brain-url --query Parameter.Value --output text",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "no-heartbeat",
        at: &[FIRST_HEARTBEAT],
        shows: &[r"^the brain has no heartbeat of this host$"],
        what: "the host says that the brain took its heartbeat, but the brain shows none of this customer",
        remedy: &[
            Do(
                "The stored brain key may be of another customer, or what is asked here is not the brain that the host reports to. Where the brain's database is, see who the last heartbeats are of:",
            ),
            Run(
                "psql -c \"select customer_id, payload->>'hostname', ts from events where event_type='heartbeat' order by ts desc limit 10\"",
            ),
            Run(
                "aws ssm get-parameter --region {region} --name /m8trx/brain-url --query Parameter.Value --output text",
            ),
            Do("If it is the key: delete it, and a new one is minted and stored:"),
            Run("aws ssm delete-parameter --region {region} --name {brain_key}"),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "customer-tag-wrong",
        at: &[FIRST_HEARTBEAT],
        shows: &[
            r"^the bootstrap is complete for (?<other>cust_[a-z0-9_]+), not for (?<wanted>cust_[a-z0-9_]+)$",
        ],
        what: "the host has set itself up as one of {other}, not of {wanted}: that is what its tag said when it booted",
        remedy: &[
            Do(
                "It holds the keys of {other}. If that is wrong, terminate it, and launch one with the right tag:",
            ),
            Run("aws ec2 terminate-instances --instance-ids {id} --region {region}"),
            Run("m8trx onboard {wanted}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "heartbeats-stopped",
        at: &[FIRST_HEARTBEAT],
        shows: &[r"^the brain's last heartbeat of this host is of (?<at>\S+)$"],
        what: "the host has reported before, for the last time at {at}",
        remedy: &[
            Do(
                "See whether EC2 and Session Manager still reach the host; each failed heartbeat says why in one line of the host's journal, and a host that was stopped and started may be out of the tailnet:",
            ),
            Run(
                "aws ec2 describe-instance-status --instance-ids {id} --region {region} --query 'InstanceStatuses[].[SystemStatus.Status,InstanceStatus.Status,Events]'",
            ),
            Run(
                "aws ssm describe-instance-information --region {region} --filters Key=InstanceIds,Values={id} --query 'InstanceInformationList[].[PingStatus,LastPingDateTime]' --output text",
            ),
            Run(
                "journalctl -u m8trx-brain-heartbeat -n 20 --no-pager; journalctl -u m8trx-tailscale-join -b --no-pager; systemctl list-timers m8trx-brain-heartbeat.timer; sudo tailscale status",
            ),
        ],
        ..Cause::NEW
    },
];
