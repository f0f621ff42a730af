//! The auth key with which a host joins the tailnet. The texts are those of `tailscale up`.

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
        shows: &[r"invalid key: unable to validate API key"],
        what: "Tailscale cannot make anything of the stored auth key: it is cut off, of another kind, or has a line break",
        or: &[
            "the key is sound, and the tailnet wants devices attested by their hardware, which this host's cannot be",
        ],
        remedy: &[
            Do("Which of them: this checks the stored key's form, without showing it:"),
            Run(
                "aws ssm get-parameter --region {region} --name {auth_key} --with-decryption --query Parameter.Value --output text | grep -cxE 'tskey-auth-[A-Za-z0-9+/]+-[A-Za-z0-9+/-]+'",
            ),
            Do(
                "Where that prints 0: an auth key begins with tskey-auth- (not tskey-api- or tskey-client-) and is one line.",
            ),
            Do(MINT),
            Run(STORE),
            Do(
                "Where it prints 1: look at the tailnet's device policies (https://login.tailscale.com/admin/settings/device-management), and whether another host joins with the same key.",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-key-malformed",
        variant: "form",
        at: AT,
        shows: &[
            r"the value of /m8trx/[a-z0-9_]+/tailscale-auth-key is not an auth key",
            r"key cannot be used for node auth",
        ],
        what: "the stored Tailscale auth key is none: cut off, of another kind, or with a line break",
        remedy: &[
            Do(
                "An auth key begins with tskey-auth- (not tskey-api- or tskey-client-) and is one line.",
            ),
            Do(MINT),
            Run(STORE),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-key-spent",
        at: AT,
        shows: &[
            r"invalid key: API key \S+ not valid",
            r"[Aa]uth ?[Kk]ey (?:has )?expired",
            r"[Aa]uth ?[Kk]ey (?:has )?already (?:been )?used",
        ],
        what: "the Tailscale auth key has expired, or was good for one device and is used up",
        remedy: &[
            Do(
                "Auth keys expire after 90 days at most, and only a reusable one takes a second host.",
            ),
            Do(MINT),
            Run(STORE),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-key-deleted",
        at: &[TAILSCALE, TAILNET],
        shows: &[
            r"invalid key: API key does not exist",
            r"invalid pre auth key",
            r"[Aa]uth ?[Kk]ey (?:not found|does not exist|revoked)",
            r"^the tailnet has no auth key \S+$",
            r"^the auth key \S+ was revoked$",
        ],
        what: "the Tailscale auth key was deleted (or expired so long ago that it is forgotten), or belongs to another tailnet",
        remedy: &[Do(MINT), Run(STORE)],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-tag-refused",
        at: AT,
        shows: &[r"requested tags \[(?<tag>[^\]]*)\] are invalid or not permitted"],
        what: "the tailnet does not let this auth key take the tag {tag}: the key carries another tag",
        or: &["the policy file has no owner for {tag}"],
        remedy: &[
            Do(
                "Which of them: `m8trx tailnet check` tells, where an OAuth client is configured; else see the policy file (https://login.tailscale.com/admin/acls/file): `tagOwners` must have \"{tag}\", owned by whoever mints the key.",
            ),
            Run("m8trx tailnet check {customer}"),
            Do("Then the key must carry exactly this tag. If it does not, or if you cannot tell:"),
            Do(MINT),
            Run(STORE),
        ],
        ..Cause::NEW
    },
    // What Tailscale's API says of a key, where it is configured, tells apart what `tailscale up` says in the same words.
    Cause {
        name: "tailscale-key-expired",
        at: &[TAILNET],
        shows: &[r"^the auth key \S+ expired at (?<at>\S+)$"],
        what: "the Tailscale auth key expired at {at}",
        remedy: &[
            Do("Auth keys expire after 90 days at most. This mints another and stores it:"),
            Run(ROTATE),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-key-used-up",
        at: &[TAILNET],
        shows: &[r"^the auth key \S+ is used up$"],
        what: "the Tailscale auth key was good for one device, and is used up",
        remedy: &[
            Do("Only a reusable key takes a second host. This mints one and stores it:"),
            Run(ROTATE),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-key-wrong-tag",
        at: &[TAILNET],
        shows: &[r"^the auth key \S+ carries (?<tags>.+) instead of (?<wanted>tag:\S+)$"],
        what: "the Tailscale auth key carries {tags} instead of {wanted}",
        remedy: &[
            Do(
                "A key lets devices in under its own tags only. This mints one with the right tag and stores it:",
            ),
            Run(ROTATE),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-tag-malformed",
        at: AT,
        shows: &[
            r"tag names can only contain numbers, letters, or dashes",
            r"tag names must (?:start with a letter|not be empty)",
            r"tags must start with 'tag:'",
        ],
        what: "the host asked for a tag that Tailscale does not allow, so its user-data is not the current bootstrap.sh",
        remedy: &[
            Do("The tag of this customer is {tag}: `_` becomes `-`. Launch with this user-data:"),
            Run("m8trx user-data"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailscale-approval",
        at: AT,
        shows: &[
            r"To approve your machine, visit",
            r"machine(?: is)? not (?:yet )?approved",
            r"needs? (?:admin )?approval",
        ],
        what: "the tailnet wants each device approved, and the auth key is not pre-approved",
        remedy: &[
            Do(
                "Approve it (https://login.tailscale.com/admin/machines) and run user-data again on the host, or, for this and all later hosts:",
            ),
            Do(MINT),
            Run(STORE),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "tailnet-lock",
        at: AT,
        shows: &[r"locked out by Tailnet Lock", r"this node is locked out"],
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
        ..Cause::NEW
    },
];
