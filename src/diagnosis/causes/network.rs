//! The way out: names, routes, proxies, filters, TLS, the clock. What answered decides who can help.

use super::Advice::{Do, Run};
use super::{APT, Cause, LATER_PACKAGES};

/// Before the host reports, its own network is in question.
const BEFORE: &[&str] = &["identity", "packages", "tailscale"];
const ANY: &[&str] = &[
    "identity",
    "packages",
    "tailscale",
    "parameters",
    LATER_PACKAGES,
];

const ROUTES: &str = "aws ec2 describe-route-tables --region {region} --filters Name=association.subnet-id,Values=\"$(aws ec2 describe-instances --instance-ids {id} --region {region} --query 'Reservations[0].Instances[0].SubnetId' --output text)\" --query 'RouteTables[].Routes[].[DestinationCidrBlock,GatewayId,NatGatewayId,TransitGatewayId,State]' --output table";
const WHO_ANSWERS: &str = "openssl s_client -connect tailscale.com:443 -servername tailscale.com </dev/null 2>/dev/null | openssl x509 -noout -subject -issuer -dates";
const NAMES: &str = "Let the host out to tailscale.com, pkgs.tailscale.com, controlplane.tailscale.com, awscli.amazonaws.com and ssm.{region}.amazonaws.com without inspection of TLS.";
const PROXY_SETTINGS: &str = "env | grep -i proxy; grep -ri proxy /etc/apt/apt.conf* /etc/environment /etc/systemd/system.conf.d 2>/dev/null | sed -E 's#//[^@/]*@#//****@#'";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "clock-wrong",
        shows: &[
            r"is not valid yet \(invalid for another",
            r"certificate is not yet (?:valid|activated)",
            r"chain uses not yet valid certificate",
            r"Signature expired: ",
            r"Signature not yet current",
            r"\(RequestTimeTooSkewed\)|\(RequestExpired\)",
            r"x509: certificate has expired or is not yet valid: current time \S+ is before",
        ],
        what: "the host's clock is wrong",
        remedy: &[
            Do(
                "On the host, see what keeps it; on EC2, 169.254.169.123 tells the time without any route out:",
            ),
            Run("timedatectl; chronyc sources 2>/dev/null || systemctl status systemd-timesyncd"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "proxy-refused",
        variant: "credentials",
        at: ANY,
        shows: &[
            r"HTTP code 407 from proxy",
            r"CONNECT tunnel failed, response 407",
            r"\b407\b.*[Pp]roxy",
            r"[Pp]roxy [Aa]uthentication [Rr]equired",
            r"returned error: 407",
        ],
        beside: &[r"\[IP: (?<proxy>[0-9a-f.:]+ \d+)\]"],
        what: "a proxy on the way wants credentials (407), and the host has none, or wrong ones",
        remedy: &[
            Do(
                "A route changes nothing. Give the image the proxy's credentials, or let the proxy pass these hosts without; or take its settings out of the image where the subnet has a way out of its own. Where the settings stand, on the host:",
            ),
            Run(PROXY_SETTINGS),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "proxy-refused",
        at: ANY,
        shows: &[
            r"Received HTTP code (?<status>\d+) from proxy",
            r"CONNECT tunnel failed, response (?<status>\d+)",
            r"Tunnel connection failed: (?<status>\d+)",
            r"Invalid response from proxy: HTTP/\S+ (?<status>\d+)",
            r"Failed to fetch \S+\s+(?<status>4\d\d) .*\[IP: \S+ (?:3128|3129|8080|8000|8118|8888|8123|9090)\]",
        ],
        what: "a proxy on the way refuses the connection (HTTP {status})",
        remedy: &[
            Do("The proxy must allow these names; whoever keeps it adds them to its list:"),
            Do(NAMES),
            Do("The host's settings of a proxy, on the host:"),
            Run(PROXY_SETTINGS),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "proxy-unreachable",
        at: ANY,
        shows: &[
            r#"Failed to connect to proxy URL: "(?<proxy>[^"]+)""#,
            r"Could not resolve proxy:? (?<proxy>\S+)",
            r"(?:Could not connect|Unable to connect|Cannot initiate the connection) to (?<proxy>[A-Za-z0-9.-]+:(?:3128|3129|8080|8000|8118|8888|8123|9090))\b",
            r"curl: \((?:7|28)\) Failed to connect to (?<proxy>[A-Za-z0-9.-]+ port (?:3128|3129|8080|8000|8118|8888|8123|9090))\b",
            r"Cannot connect to (?<proxy>proxy)",
        ],
        what: "the host is to go out through a proxy ({proxy}), and does not get a connection to that",
        remedy: &[
            Do(
                "A route to the internet changes nothing while the settings name the proxy. Is it up, is its name known to the VPC's DNS, does its security group let this subnet in? Or take the settings out of the image. On the host:",
            ),
            Run(PROXY_SETTINGS),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "no-dns",
        at: BEFORE,
        shows: &[
            r"curl: \(6\) Could not resolve host: (?<host>[A-Za-z0-9.-]+)",
            r"(?:Temporary failure|Something wicked happened) resolving '(?<host>[^']+)'",
            r"Could not resolve '(?<host>[^']+)'",
            r"lookup (?<host>[A-Za-z0-9.-]+) on \S+: ",
            r"Resolving timed out after (?<host>\d+ milliseconds)",
            r"Failed to resolve '(?<host>[^']+)'",
        ],
        what: "the host cannot resolve names ({host})",
        remedy: &[
            Do(
                "The VPC must have DNS enabled (both must say true), or its DHCP options must name a server that the host can reach:",
            ),
            Run(
                "VPC=$(aws ec2 describe-instances --instance-ids {id} --region {region} --query 'Reservations[0].Instances[0].VpcId' --output text); for A in enableDnsSupport enableDnsHostnames; do aws ec2 describe-vpc-attribute --region {region} --vpc-id \"$VPC\" --attribute $A --output text; done",
            ),
            Run(
                "aws ec2 describe-dhcp-options --region {region} --query 'DhcpOptions[].DhcpConfigurations[].[Key,Values[].Value]'",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "no-dns",
        variant: "tailnet",
        at: &[LATER_PACKAGES],
        shows: &[
            r"curl: \(6\) Could not resolve host: (?<host>[A-Za-z0-9.-]+)",
            r"(?:Temporary failure|Something wicked happened) resolving '(?<host>[^']+)'",
            r"Could not resolve '(?<host>[^']+)'",
        ],
        what: "the host cannot resolve names ({host}) since it is in the tailnet; before, it could, so the VPC's DNS works",
        remedy: &[
            Do(
                "The tailnet's DNS settings override the host's: a global nameserver that this host cannot reach, mostly. Turn off `Override DNS servers`, or give its own nameserver a grant (https://login.tailscale.com/admin/dns). On the host:",
            ),
            Run("resolvectl status 2>/dev/null || cat /etc/resolv.conf; tailscale dns status"),
            Do("Or let this host keep its own DNS:"),
            Run(
                "sudo tailscale set --accept-dns=false && sudo bash /var/lib/cloud/instance/scripts/part-001",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tls-broken",
        variant: "reset",
        at: ANY,
        shows: &[
            r"curl: \(35\).*(?:reset by peer|SSL_ERROR_SYSCALL|unexpected eof|Connection was reset|Error in the pull function)",
            r"Could not handshake: .*(?:reset|unexpected|closed|non-properly terminated|Error in the pull function)",
            r"curl: \(28\) SSL connection timeout",
        ],
        what: "something on the way cuts encrypted connections while they begin: a firewall that filters by the name in TLS",
        remedy: &[
            Do(NAMES),
            Do("On the host, whether another name gets through:"),
            Run(
                "for N in tailscale.com pkgs.tailscale.com www.amazon.com; do echo $N; curl -sSI -m 10 https://$N/ | head -n 1; done",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tls-broken",
        at: ANY,
        shows: &[
            r"curl: \((?:35|51|53|58|60|77|80|83|90|91)\)",
            r"SSL validation failed for",
            r"Certificate verification failed",
            r"Could not handshake: ",
            r"server certificate verification failed",
            r"x509: certificate signed by unknown authority",
            r"CERTIFICATE_VERIFY_FAILED",
            r"No system certificates available",
        ],
        what: "no trusted encrypted connection comes about: a proxy or firewall on the way breaks TLS, or the image lacks certificates",
        remedy: &[
            Do(NAMES),
            Do(
                "On the host, this shows who answers instead; where that is the real site, install `ca-certificates` anew:",
            ),
            Run(WHO_ANSWERS),
            Run(
                "sudo apt-get install --reinstall -y ca-certificates && sudo update-ca-certificates",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "connection-refused",
        at: ANY,
        shows: &[
            r"curl: \(7\) .*(?:connect|Connect)\S* to (?<host>[A-Za-z0-9.-]+).*[Cc]onnection refused",
            r"(?:Could not connect|Cannot initiate the connection|Unable to connect) to (?<host>[A-Za-z0-9.-]+).*\(111: Connection refused\)",
        ],
        what: "something answered for {host} and refused the connection; that is not a missing route",
        remedy: &[
            Do(
                "A firewall that rejects, or a name that leads elsewhere (a DNS filter answers 0.0.0.0 or its own address). On the host, what address the name has, and who owns it:",
            ),
            Run(
                "getent ahosts {host}; curl -sv -m 10 -o /dev/null https://{host}/ 2>&1 | grep -E 'Trying|refused|Connected'",
            ),
            Do(NAMES),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "download-slow",
        at: ANY,
        shows: &[
            r"curl: \(28\) Operation too slow",
            r"curl: \(28\) Operation timed out after \d+ milliseconds with [1-9]\d* ",
            r"curl: \(18\) ",
            r"end of response with \d+ bytes missing",
            r"transfer closed with \d+ bytes remaining",
        ],
        what: "a download began and came to a stop half-way: the way out is too slow, or something on it cuts long transfers",
        remedy: &[
            Do(
                "A NAT instance or proxy that is at its limits, or an MTU that is too large for a tunnel on the way. Run user-data again; if it stays so, on the host:",
            ),
            Run(
                "curl -o /dev/null -m 60 https://awscli.amazonaws.com/awscli-exe-linux-x86_64.zip; ping -c 3 -M do -s 1472 1.1.1.1",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "connection-cut",
        at: ANY,
        shows: &[
            r"curl: \((?:16|52|55|56|92)\) ",
            r"Error reading from server.*Remote end closed connection",
            r"Connection reset by peer",
            r"Undetermined Error",
        ],
        what: "connections come about and are cut: by something on the way",
        or: &["by the far side, for a moment"],
        remedy: &[
            Do("Which of them: on the host, whether it happens again, and with other names:"),
            Run(
                "for N in https://tailscale.com https://pkgs.tailscale.com http://archive.ubuntu.com https://www.amazon.com; do echo $N; curl -sSI -m 10 $N/ | head -n 1; done",
            ),
            Do(
                "Where all pass, run user-data again. Where some do not, a firewall or proxy on the way must let them through.",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "no-route",
        at: ANY,
        shows: &[
            r"curl: \((?:7|28)\)",
            r"[Cc]onnection timed out",
            r"Cannot initiate the connection to \S+ \(\d+\.\d+\.\d+\.\d+\)\. - connect \((?:101|113)",
            r"[Nn]o route to host",
            r"dial tcp .*i/o timeout",
        ],
        what: "the host gets no connection to the internet: its subnet has no way out",
        remedy: &[
            Do(
                "The subnet needs a route 0.0.0.0/0 to a NAT gateway, or to an internet gateway and the host a public address; where this shows nothing, the VPC's main route table holds:",
            ),
            Run(ROUTES),
            Do(
                "Its security group and the subnet's network ACL must let out TCP 443 and 80 and UDP 41641, and the ACL answers in to ports 1024-65535.",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "no-route",
        variant: "apt",
        at: APT,
        shows: &[
            r"Unable to connect to \S+:https?:",
            r"Network is unreachable",
        ],
        general: true,
        what: "the host gets no connection to its package mirrors: its subnet has no way out",
        remedy: &[
            Do(
                "The subnet needs a route 0.0.0.0/0 to a NAT gateway, or to an internet gateway and the host a public address:",
            ),
            Run(ROUTES),
            Do("Its security group and the subnet's network ACL must let out TCP 443 and 80."),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "download-refused",
        variant: "country",
        at: ANY,
        shows: &[
            r"returned error: (?<status>451)",
            r"Failed to fetch \S+\s+(?<status>451) ",
        ],
        what: "the far side serves nothing to this network or country (HTTP {status})",
        remedy: &[
            Do(
                "Tailscale's packages are not given to some countries and networks: let the host out by another way (a NAT in another region, a proxy), or install from a mirror of your own in the image. What answers, on the host:",
            ),
            Run("curl -sSIL https://pkgs.tailscale.com/stable/ | head -n 20"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "download-refused",
        variant: "filter",
        at: ANY,
        shows: &[
            r"returned error: (?<status>4(?:01|03|05|06|29|70))\b",
            r"Failed to fetch (?<url>\S+)\s+(?<status>4(?:01|03|05|06|29|70)) ",
        ],
        what: "a download was refused with HTTP {status}: by a filter or proxy on the way",
        or: &["by the far side itself (its own limits or terms)"],
        remedy: &[
            Do(
                "Which of them: on the host, the answer's headers name who sent it (Server, Via, X-…):",
            ),
            Run(
                "curl -sSIL https://tailscale.com/install.sh; curl -sSIL https://pkgs.tailscale.com/stable/",
            ),
            Do(NAMES),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "download-refused",
        variant: "far-side",
        at: ANY,
        shows: &[r"curl: \(22\).* error: (?<status>5\d\d)"],
        what: "the far side of a download has a problem of its own: it answers with HTTP {status}",
        remedy: &[
            Do(
                "The network, the image and its keys are fine; errors of apt that follow come of what is missing. See https://status.tailscale.com (or https://health.aws.amazon.com/health/status), and run user-data again later:",
            ),
            Run("curl -sSIL https://pkgs.tailscale.com/stable/ | head -n 5"),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "download-refused",
        at: ANY,
        shows: &[r"curl: \(22\).* error: (?<status>\d+)"],
        what: "a download was answered with HTTP {status}",
        remedy: &[
            Do(
                "What was asked for is not there for this release, or a proxy refuses it. See what answers, on the host:",
            ),
            Run(
                "curl -sSIL https://tailscale.com/install.sh; curl -sSIL https://pkgs.tailscale.com/stable/",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "download-broken",
        at: BEFORE,
        shows: &[
            r"Tailscale install script not whole",
            r"End-of-central-directory signature not found",
            r"Clearsigned file isn't valid",
            r"Splitting up \S+ into data and signature failed",
            r"gpg: no valid OpenPGP data found",
            r"Invalid file format",
        ],
        what: "a download came incomplete or was replaced by something else",
        remedy: &[
            Do(
                "A proxy or captive portal answers instead of the real site; on the host, see what it sends:",
            ),
            Run(
                "curl -sSL https://tailscale.com/install.sh | head -n 5; curl -sS http://archive.ubuntu.com/ubuntu/dists/jammy/InRelease | head -n 5",
            ),
        ],
        ..Cause::NEW
    },
];
