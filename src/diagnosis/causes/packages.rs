//! Packages and downloads: apt, curl, dpkg.

use super::Advice::{Do, Run};
use super::Cause;

const ROUTES: &str = "aws ec2 describe-route-tables --region {region} --filters Name=association.subnet-id,Values=\"$(aws ec2 describe-instances --instance-ids {id} --region {region} --query 'Reservations[0].Instances[0].SubnetId' --output text)\" --query 'RouteTables[].Routes[].[DestinationCidrBlock,GatewayId,NatGatewayId,State]' --output table";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "clock-wrong",
        at: &[],
        shows: &[
            r"is not valid yet \(invalid for another",
            r"certificate is not yet valid",
            r"Signature expired: ",
            r"Signature not yet current",
        ],
        general: false,
        what: "the host's clock is wrong",
        remedy: &[
            Do(
                "On the host, see what keeps it; on EC2, 169.254.169.123 tells the time without any route out:",
            ),
            Run("timedatectl; chronyc sources 2>/dev/null || systemctl status systemd-timesyncd"),
        ],
    },
    Cause {
        name: "no-dns",
        at: &["packages", "tailscale"],
        shows: &[
            r"curl: \(6\) Could not resolve host: (?<host>[A-Za-z0-9.-]+)",
            r"Temporary failure resolving '(?<host>[^']+)'",
            r"Could not resolve '(?<host>[^']+)'",
        ],
        general: false,
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
    },
    Cause {
        name: "no-route",
        at: &["packages", "tailscale"],
        shows: &[
            r"curl: \((?:7|28)\)",
            r"Cannot initiate the connection to \S+ \(\d+\.\d+\.\d+\.\d+\)\. - connect \(101",
        ],
        general: false,
        what: "the host gets no connection to the internet: its subnet has no way out",
        remedy: &[
            Do(
                "The subnet needs a route 0.0.0.0/0 to a NAT gateway, or to an internet gateway and the host a public address; where this shows nothing, the VPC's main route table holds:",
            ),
            Run(ROUTES),
            Do(
                "Its security group and the subnet's network ACL must let out TCP 443 and 80 and UDP 41641.",
            ),
        ],
    },
    Cause {
        name: "tls-broken",
        at: &["packages", "tailscale", "parameters"],
        shows: &[
            r"curl: \((?:35|51|58|60|77|80|83|91)\)",
            r"SSL validation failed for",
            r"Certificate verification failed",
            r"server certificate verification failed",
        ],
        general: false,
        what: "no trusted encrypted connection comes about: a proxy or firewall on the way breaks TLS, or the image lacks certificates",
        remedy: &[
            Do(
                "Let the host out to tailscale.com, pkgs.tailscale.com, controlplane.tailscale.com, awscli.amazonaws.com and ssm.{region}.amazonaws.com without inspection of TLS. On the host, this shows who answers instead:",
            ),
            Run(
                "openssl s_client -connect tailscale.com:443 -servername tailscale.com </dev/null 2>/dev/null | openssl x509 -noout -subject -issuer -dates",
            ),
        ],
    },
    Cause {
        name: "download-refused",
        at: &["packages", "tailscale"],
        shows: &[r"curl: \(22\) The requested URL returned error: (?<status>\d+)"],
        general: false,
        what: "a download was answered with HTTP {status}",
        remedy: &[
            Do(
                "A proxy on the way refuses it, or the other side has a problem (https://status.tailscale.com, https://health.aws.amazon.com): see what answers, and launch again later",
            ),
            Run("curl -sSIL https://tailscale.com/install.sh"),
        ],
    },
    Cause {
        name: "download-broken",
        at: &["packages", "tailscale"],
        shows: &[
            r"Tailscale install script not whole",
            r"End-of-central-directory signature not found",
        ],
        general: false,
        what: "a download came incomplete or was replaced by something else",
        remedy: &[
            Do(
                "A proxy or captive portal answers instead of the real site; on the host, see what it sends:",
            ),
            Run("curl -sSL https://tailscale.com/install.sh | head -n 5"),
        ],
    },
    Cause {
        name: "package-missing",
        at: &["packages", "tailscale"],
        shows: &[
            r"Unable to locate package (?<package>[a-z0-9][a-z0-9.+-]*)",
            r"Package '?(?<package>[a-z0-9][a-z0-9.+-]*)'? has no installation candidate",
        ],
        general: false,
        what: "the image's package archive has no package {package}",
        remedy: &[
            Do(
                "Leave --ami out for Ubuntu 22.04, whose archive has all of them, or enable the image's missing component (`universe` on Ubuntu). On the host:",
            ),
            Run(
                "cat /etc/os-release /etc/apt/sources.list /etc/apt/sources.list.d/*; apt-cache policy {package}",
            ),
        ],
    },
    Cause {
        name: "package-lock-held",
        at: &["packages", "tailscale"],
        shows: &[
            r"Could not get lock /\S+",
            r"Unable to acquire the dpkg frontend lock",
            r"Unable to lock (?:directory|the administration directory)",
        ],
        general: false,
        what: "another process held the package lock for longer than five minutes",
        remedy: &[
            Do(
                "On the host, see who holds it and let it finish (mostly unattended-upgrades), then run user-data again:",
            ),
            Run(
                "sudo lsof /var/lib/dpkg/lock-frontend /var/lib/apt/lists/lock; ps -ef | grep -E 'apt|dpkg|unattended'",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
    },
    Cause {
        name: "repository-untrusted",
        at: &["packages", "tailscale"],
        shows: &[r"NO_PUBKEY [0-9A-F]+"],
        general: false,
        what: "apt does not trust a package repository of the image",
        remedy: &[
            Do(
                "An image with outdated keys, or a mirror that is not what it says; leave --ami out for Ubuntu 22.04. On the host:",
            ),
            Run("sudo apt-get update; ls -l /etc/apt/trusted.gpg.d /usr/share/keyrings"),
        ],
    },
    Cause {
        name: "dpkg-failed",
        at: &["packages", "tailscale"],
        shows: &[
            r"Sub-process /usr/bin/dpkg returned an error code",
            r"dpkg was interrupted, you must manually run",
        ],
        general: false,
        what: "a package was fetched and could not be installed",
        remedy: &[
            Do(
                "On the host, finish what dpkg began and see what it says, then run user-data again:",
            ),
            Run(
                "sudo dpkg --configure -a; sudo tail -n 30 /var/log/dpkg.log /var/log/apt/term.log",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
    },
    Cause {
        name: "mirror-down",
        at: &["packages", "tailscale"],
        shows: &[
            r"Failed to fetch \S+\s+(?:Could not connect|Unable to connect|Connection |Cannot initiate the connection|Error reading from server|Undetermined Error|Hash Sum mismatch|File has unexpected size|Bad header|Could not handshake|Clearsigned file|Could not wait|[45]\d\d )",
            r"The repository '[^']*' (?:does not have|no longer has) a Release file",
            r"Unable to fetch some archives",
            r"Some index files failed to download",
        ],
        general: false,
        what: "the package mirror does not answer, or answers with an error",
        remedy: &[
            Do(
                "Mostly a mirror that is away for a moment: launching again in some minutes settles it.",
            ),
            Do(
                "If it happens again, the subnet has no way out; it needs a route 0.0.0.0/0 to a NAT or internet gateway:",
            ),
            Run(ROUTES),
        ],
    },
    Cause {
        name: "tailscale-install-failed",
        at: &["tailscale"],
        shows: &[r"Tailscale install script failed"],
        general: true,
        what: "Tailscale's install script failed three times",
        remedy: &[
            Do(
                "The image must be one that Tailscale supports, and pkgs.tailscale.com must be reachable. On the host, run it and see what it says:",
            ),
            Run("curl -fsSL https://tailscale.com/install.sh | sudo sh"),
        ],
    },
];
