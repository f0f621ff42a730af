//! Joining the tailnet. The texts are those of `tailscale up`.

use super::Advice::{Do, Run};
use super::Cause;
use crate::diagnosis::{TAILNET, TAILSCALE};

const AT: &[&str] = &[TAILSCALE];

const ROTATE: &str = "m8trx rotate-tailscale-key {customer}";
const MINT: &str = "Replace it. Where an OAuth client of Tailscale is configured, this mints the key itself; else make one in the admin console (https://login.tailscale.com/admin/settings/keys): reusable, ephemeral, pre-approved, tag {tag}. It is asked for without being shown:";
const STORE: &str = "m8trx rotate-tailscale-key {customer} --region {region}";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "tailscale-key-malformed",
        at: AT,
        shows: &[
            r"invalid key: unable to validate API key",
            r"the value of /m8trx/[a-z0-9_]+/tailscale-auth-key is not an auth key",
        ],
        general: false,
        what: "the stored Tailscale auth key is none: cut off, of another kind, or with a line break",
        remedy: &[
            Do(
                "An auth key begins with tskey-auth- (not tskey-api- or tskey-client-) and is one line.",
            ),
            Do(MINT),
            Run(STORE),
        ],
    },
    Cause {
        name: "tailscale-key-spent",
        at: AT,
        // The second as a control server of one's own says it.
        shows: &[
            r"invalid key: API key \S+ not valid",
            r"authkey (?:expired|already used)",
        ],
        general: false,
        what: "the Tailscale auth key has expired, or was good for one device and is used up",
        remedy: &[
            Do(
                "Auth keys expire after 90 days at most, and only a reusable one takes a second host.",
            ),
            Do(MINT),
            Run(STORE),
        ],
    },
    Cause {
        name: "tailscale-key-deleted",
        at: &[TAILSCALE, TAILNET],
        shows: &[
            r"invalid key: API key does not exist",
            r"invalid pre auth key",
            r"^the tailnet has no auth key \S+$",
            r"^the auth key \S+ was revoked$",
        ],
        general: false,
        what: "the Tailscale auth key was deleted (or expired so long ago that it is forgotten), or belongs to another tailnet",
        remedy: &[Do(MINT), Run(STORE)],
    },
    Cause {
        name: "tailscale-tag-refused",
        at: AT,
        shows: &[r"requested tags \[(?<tags>[^\]]*)\] are invalid or not permitted"],
        general: false,
        what: "the tailnet does not let this auth key take the tag {tags}",
        remedy: &[
            Do(
                "Two reasons: the key carries another tag, or the policy file has no owner for this one. First the policy file (https://login.tailscale.com/admin/acls/file): `tagOwners` must have \"{tag}\", owned by whoever mints the key.",
            ),
            Do("Then the key must carry exactly this tag. If it does not, or if you cannot tell:"),
            Do(MINT),
            Run(STORE),
        ],
    },
    // What Tailscale's API says of a key, where it is configured, tells apart what `tailscale up` says in the same words.
    Cause {
        name: "tailscale-key-expired",
        at: &[TAILNET],
        shows: &[r"^the auth key \S+ expired at (?<at>\S+)$"],
        general: false,
        what: "the Tailscale auth key expired at {at}",
        remedy: &[
            Do("Auth keys expire after 90 days at most. This mints another and stores it:"),
            Run(ROTATE),
        ],
    },
    Cause {
        name: "tailscale-key-used-up",
        at: &[TAILNET],
        shows: &[r"^the auth key \S+ is used up$"],
        general: false,
        what: "the Tailscale auth key was good for one device, and is used up",
        remedy: &[
            Do("Only a reusable key takes a second host. This mints one and stores it:"),
            Run(ROTATE),
        ],
    },
    Cause {
        name: "tailscale-key-wrong-tag",
        at: &[TAILNET],
        shows: &[r"^the auth key \S+ carries (?<tags>.+) instead of (?<wanted>tag:\S+)$"],
        general: false,
        what: "the Tailscale auth key carries {tags} instead of {wanted}",
        remedy: &[
            Do(
                "A key lets devices in under its own tags only. This mints one with the right tag and stores it:",
            ),
            Run(ROTATE),
        ],
    },
    Cause {
        name: "tailscale-tag-malformed",
        at: AT,
        shows: &[
            r"tag names can only contain numbers, letters, or dashes",
            r"tag names must (?:start with a letter|not be empty)",
            r"tags must start with 'tag:'",
        ],
        general: false,
        what: "the host asked for a tag that Tailscale does not allow, so its user-data is not the current bootstrap.sh",
        remedy: &[
            Do("The tag of this customer is {tag}: `_` becomes `-`. Launch with this user-data:"),
            Run("m8trx user-data"),
        ],
    },
    Cause {
        name: "tailscale-approval",
        at: AT,
        shows: &[r"To approve your machine, visit"],
        general: false,
        what: "the tailnet wants each device approved, and the auth key is not pre-approved",
        remedy: &[
            Do(
                "Approve it (https://login.tailscale.com/admin/machines) and run user-data again on the host, or, for this and all later hosts:",
            ),
            Do(MINT),
            Run(STORE),
        ],
    },
    Cause {
        name: "tailnet-lock",
        at: AT,
        shows: &[r"locked out by Tailnet Lock", r"this node is locked out"],
        general: false,
        what: "the host joined, but Tailnet Lock keeps it out: no signing node has signed it",
        remedy: &[
            Do(
                "On a signing node, sign it (this lists the keys of locked-out nodes), and run user-data again on the host:",
            ),
            Run("tailscale lock status"),
            Run("tailscale lock sign nodekey:NODEKEY"),
            Do(
                "Or store an auth key that is signed already, so that later hosts come in by themselves: on a signing node, `tailscale lock sign file:KEYFILE` prints it. Then:",
            ),
            Run(STORE),
        ],
    },
    Cause {
        name: "tailscale-rate-limited",
        at: AT,
        shows: &[r"node registration rate limited"],
        general: false,
        what: "Tailscale limits how many devices join at a time",
        remedy: &[Do(
            "Launch fewer hosts at a time; run user-data again on this one in some minutes",
        )],
    },
    Cause {
        name: "tailscaled-down",
        at: AT,
        shows: &[r"failed to connect to local tailscaled"],
        general: false,
        what: "Tailscale's service does not run on the host",
        remedy: &[
            Do("On the host, see why (a kernel without TUN, mostly):"),
            Run("systemctl status tailscaled; journalctl -u tailscaled -n 40 --no-pager"),
        ],
    },
    Cause {
        name: "tailscale-timeout",
        at: AT,
        shows: &[r"timeout waiting for Tailscale service to enter a Running state"],
        general: true,
        what: "the host waited for Tailscale's control plane in vain",
        remedy: &[
            Do(
                "It must get out to controlplane.tailscale.com and log.tailscale.com on TCP 443 without inspection of TLS. On the host:",
            ),
            Run(
                "sudo tailscale status; journalctl -u tailscaled -n 40 --no-pager; curl -sSI https://controlplane.tailscale.com/key?v=100",
            ),
        ],
    },
];
