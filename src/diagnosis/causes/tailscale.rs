//! Tailscale on the host: its install script, its service, its way to the control plane.

use super::Advice::{Do, Run};
use super::Cause;
use crate::diagnosis::TAILSCALE;

const AT: &[&str] = &[TAILSCALE];
const SERVICE: &str = "systemctl status tailscaled; journalctl -u tailscaled -n 40 --no-pager";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "tailscale-rate-limited",
        at: AT,
        shows: &[
            r"node registration rate limited",
            r"tailscale up failed: .*(?:[Tt]oo many requests|rate limit)",
        ],
        what: "Tailscale limits how many devices join at a time",
        remedy: &[Do(
            "Launch fewer hosts at a time; run user-data again on this one in some minutes",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "tailnet-full",
        at: AT,
        shows: &[
            r"(?:device|node|machine|user) (?:limit|quota)(?: has been)? (?:reached|exceeded)",
            r"(?:reached|exceeded|over) (?:the|its|your) (?:maximum )?(?:device|node|machine|user)s? (?:limit|quota)",
        ],
        what: "the tailnet's plan allows no further device",
        remedy: &[
            Do(
                "Remove devices that are gone, or change the plan (https://login.tailscale.com/admin/settings/billing); `m8trx` makes keys ephemeral, so that ended hosts leave by themselves:",
            ),
            Run("tailscale status | grep offline"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-state-foreign",
        at: AT,
        shows: &[
            r"device with nodekey:\S+ already exists",
            r"node ?key \S* ?(?:already exists|already in use|is already registered)",
            r"machine key.*(?:mismatch|already)",
        ],
        what: "the image carries the Tailscale state of another node, so this host passes itself off as that one",
        remedy: &[
            Do(
                "The image was made from a host that was in a tailnet. On this host, forget that state, and run user-data again:",
            ),
            Run(
                "sudo systemctl stop tailscaled; sudo rm -rf /var/lib/tailscale; sudo systemctl start tailscaled",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
            Do(
                "Make the image again without /var/lib/tailscale (and without Tailscale at all), or leave --ami out.",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscaled-down",
        variant: "no-backend",
        at: AT,
        shows: &[
            r"503 Service Unavailable: no backend",
            r"502.*backend not found",
            r"(?:TPM|tpm).*(?:seal|lockout)",
        ],
        what: "Tailscale's service runs but has no state to work with: mostly it cannot unseal it with the instance's TPM",
        remedy: &[
            Do("On the host, see why:"),
            Run(SERVICE),
            Do(
                "Where it names the TPM, let it keep its state without (or take a newer Tailscale), and run user-data again:",
            ),
            Run(
                "echo 'FLAGS=\"--encrypt-state=false\"' | sudo tee -a /etc/default/tailscaled; sudo rm -f /var/lib/tailscale/tailscaled.state; sudo systemctl restart tailscaled",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscaled-down",
        at: AT,
        shows: &[
            r"failed to connect to local tailscaled",
            r"[Ff]ailed to connect to local Tailscale",
            r"tailscaled\.sock: connect",
            r"tailscaled\.service (?:not running|failed|could not be found|not found)",
            r"Failed to (?:start|restart|enable) tailscaled",
            r"is CONFIG_TUN enabled|/dev/net/tun does not exist",
        ],
        what: "Tailscale's service does not run on the host",
        remedy: &[
            Do("On the host, see why (a kernel without TUN, mostly):"),
            Run(SERVICE),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-timeout",
        variant: "no-way",
        at: AT,
        shows: &[
            r"(?:fetch control key|register request): .*dial tcp [0-9\[].*(?<error>no route to host|connection refused|network is unreachable|i/o timeout|timed out)",
        ],
        what: "the host does not get through to Tailscale's control plane ({error}), though it has got this far",
        remedy: &[
            Do(
                "Let it out to controlplane.tailscale.com and log.tailscale.com on TCP 443, without inspection of TLS (and UDP 41641 and 3478). On the host, what it meets:",
            ),
            Run(
                "curl -sv -m 10 -o /dev/null https://controlplane.tailscale.com/key?v=100 2>&1 | grep -E 'Trying|Connected|refused|route|HTTP'; journalctl -u tailscaled -n 20 --no-pager",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-timeout",
        at: AT,
        shows: &[
            r"timeout waiting for Tailscale service to enter a Running state",
            r"tailscale up failed: .*(?:context deadline exceeded|fetch control key)",
        ],
        general: true,
        what: "the host waited for Tailscale's control plane in vain: it does not get through to it",
        or: &[
            "it gets through, and the control plane answers with an error (of the tailnet's policy file or address pool, or an outage)",
        ],
        remedy: &[
            Do(
                "Which of them: on the host, the journal says; the last command prints a status line where it gets through:",
            ),
            Run(
                "journalctl -u tailscaled -n 40 --no-pager; sudo tailscale status; curl -sSI -m 10 https://controlplane.tailscale.com/key?v=100 | head -n 1",
            ),
            Do(
                "Where it does not get through: let it out to controlplane.tailscale.com and log.tailscale.com on TCP 443, without inspection of TLS.",
            ),
            Do(
                "Where it does: see the policy file (https://login.tailscale.com/admin/acls/file), and https://status.tailscale.com.",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-install-failed",
        variant: "unsupported",
        at: AT,
        shows: &[
            r"^(?<release>.+) isn't supported by this script yet",
            r"Couldn't determine what kind of (?<release>Linux)",
        ],
        what: "Tailscale's install script does not support the image's release ({release})",
        remedy: &[Do(
            "Take a release that it supports: leave --ami out for Ubuntu 22.04.",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-install-failed",
        at: AT,
        shows: &[r"Tailscale install script failed"],
        general: true,
        what: "Tailscale's install script failed three times",
        remedy: &[
            Do(
                "The image must be one that Tailscale supports, and pkgs.tailscale.com must be reachable. On the host, run it and see what it says:",
            ),
            Run("curl -fsSL https://tailscale.com/install.sh | sudo sh"),
        ],
        ..Cause::NEW
    },
];
