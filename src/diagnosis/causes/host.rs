//! The host itself: its image, its launch settings, its disk and memory, its service manager.

use super::Advice::{Do, Run};
use super::Cause;
use crate::diagnosis::BOOT;

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "image-does-not-boot",
        at: &[BOOT],
        shows: &[
            r"Kernel panic - not syncing",
            r"You are in emergency mode",
            r"Unable to mount root fs",
        ],
        general: false,
        what: "the image does not boot on this instance type",
        remedy: &[Do(
            "Leave --ami out for Ubuntu 22.04, which boots, or repair the image",
        )],
    },
    Cause {
        name: "user-data-mangled",
        at: &[BOOT],
        shows: &[
            r"Unhandled (?:non-multipart|unknown content-type)",
            r"Missing #! in script",
            r"part-001: line \d+: (?:syntax error|unexpected EOF)",
            r"bad interpreter",
        ],
        general: false,
        what: "user-data ran or was to run, but it is not bootstrap.sh as it should be",
        remedy: &[
            Do(
                "See how it begins; the first line must be #!/bin/bash. Usual reasons: encoded in base64 twice, Terraform's templatefile() instead of file(), line ends of Windows:",
            ),
            Run(
                "aws ec2 describe-instance-attribute --instance-id {id} --region {region} --attribute userData --query UserData.Value --output text | base64 -d | head -n 3 | cat -A",
            ),
            Do("This is what it should be:"),
            Run("m8trx user-data"),
        ],
    },
    Cause {
        name: "user-data-never-ran",
        at: &[BOOT],
        shows: &[
            r"Cloud-init v\. \S+ finished at",
            r"^nothing of the bootstrap is on the console$",
        ],
        general: true,
        what: "the host booted, and its console shows nothing of the bootstrap: user-data never ran",
        remedy: &[
            Do(
                "A host that was stopped and started does not run it again; then see on it why it does not report: journalctl -u m8trx-brain-heartbeat -n 20. Otherwise see whether it has user-data at all; its first line must be #!/bin/bash:",
            ),
            Run(
                "aws ec2 describe-instance-attribute --instance-id {id} --region {region} --attribute userData --query UserData.Value --output text | base64 -d | head -n 3",
            ),
            Do(
                "If it has, the image has no working cloud-init, or an instance made of this image ran it before: take Ubuntu 22.04 (leave --ami out)",
            ),
        ],
    },
    Cause {
        name: "no-console",
        at: &[BOOT],
        shows: &[r"^the console is empty$"],
        general: true,
        what: "the host has not reported, and EC2 shows nothing of its console",
        remedy: &[
            Do(
                "Only instances on Nitro show their console at once, others after minutes; some images write nothing to it. Ask again, and look at its screen:",
            ),
            Run("m8trx diagnose {id}"),
            Run(
                "aws ec2 get-console-screenshot --instance-id {id} --region {region} --wake-up --query ImageData --output text | base64 -d >screen.jpg",
            ),
        ],
    },
    Cause {
        name: "metadata-unreachable",
        at: &[BOOT, "identity"],
        shows: &[
            r"no metadata for a minute",
            r"[Gg]iving up on (?:md|metadata) from \S*169\.254\.169\.254",
            r"Calling 'http://169\.254\.169\.254' failed",
        ],
        general: false,
        what: "the host got no answer from the metadata service, which tells it whose it is",
        remedy: &[
            Do(
                "Its endpoint must be enabled, and no firewall of the image may block 169.254.169.254:",
            ),
            Run(
                "aws ec2 describe-instances --instance-ids {id} --region {region} --query 'Reservations[].Instances[].MetadataOptions'",
            ),
            Run(
                "aws ec2 modify-instance-metadata-options --instance-id {id} --region {region} --http-endpoint enabled --http-tokens required --instance-metadata-tags enabled",
            ),
        ],
    },
    Cause {
        name: "customer-tag-missing",
        at: &["identity"],
        shows: &[r"the instance has no Customer tag"],
        general: false,
        what: "the instance has no tag `Customer`, so it does not know whose it is",
        remedy: &[Do(
            "Launch another with the tag; `m8trx onboard` sets it, and by hand it belongs into `--tag-specifications` of the launch",
        )],
    },
    Cause {
        name: "customer-tag-malformed",
        at: &["identity"],
        shows: &[r"the Customer tag is no customer id: (?<value>.*)$"],
        general: false,
        what: "the value of its tag `Customer` is no customer id: {value}",
        remedy: &[Do(
            "A customer id is cust_ and then a-z, 0-9 and _, at most 64 characters; launch another with such a tag",
        )],
    },
    Cause {
        name: "metadata-tags-disabled",
        at: &["identity"],
        shows: &[r"no tags in the metadata"],
        general: false,
        what: "its launch settings keep the instance's tags out of the metadata, so it does not know whose it is",
        remedy: &[
            Do(
                "Correct whatever launched it (InstanceMetadataTags=enabled), and this host, on which user-data can then run again:",
            ),
            Run(
                "aws ec2 modify-instance-metadata-options --instance-id {id} --region {region} --instance-metadata-tags enabled",
            ),
        ],
    },
    Cause {
        name: "not-root",
        at: &["identity"],
        shows: &[r"it must run as root"],
        general: false,
        what: "bootstrap.sh was not run as root",
        remedy: &[
            Do("As user-data it is; by hand:"),
            Run("sudo bash bootstrap.sh"),
        ],
    },
    Cause {
        name: "disk-full",
        at: &[],
        shows: &[
            r"No space left on device",
            r"You don't have enough free space in",
        ],
        general: false,
        what: "the root volume is full",
        remedy: &[
            Do(
                "Launch with a larger root volume; `m8trx onboard` asks for at least 20 GiB. This one's size:",
            ),
            Run(
                "aws ec2 describe-volumes --region {region} --filters Name=attachment.instance-id,Values={id} --query 'Volumes[].[VolumeId,Size]' --output table",
            ),
        ],
    },
    Cause {
        name: "out-of-memory",
        at: &[],
        shows: &[r"Out of memory: Killed process \d+ \((?<process>[^)]*)\)"],
        general: false,
        what: "the host ran out of memory, and the kernel ended {process}",
        remedy: &[Do(
            "Launch with more memory: --instance-type t3.small has 2 GiB, t3.medium 4 GiB",
        )],
    },
    Cause {
        name: "file-unwritable",
        at: &[],
        shows: &[
            r"(?<path>/[A-Za-z0-9._/-]+) could not be written",
            r"(?<path>/[A-Za-z0-9._/-]+): Read-only file system",
        ],
        general: true,
        what: "{path} could not be written",
        remedy: &[
            Do("A problem of the host or its image: a read-only or full file system. On the host:"),
            Run("df -h / && findmnt -o TARGET,OPTIONS / && dmesg | tail -n 30"),
        ],
    },
    Cause {
        name: "systemd-failed",
        at: &[],
        shows: &[
            r"command failed: systemctl",
            r"Failed to (?:reload daemon|connect to bus|enable unit|start|get properties)",
            r"Job for \S+ failed",
        ],
        general: true,
        what: "the host's service manager failed",
        remedy: &[
            Do("A genuine problem of the host. On it, look at what systemd says:"),
            Run(
                "systemctl status m8trx-brain-heartbeat.timer m8trx-brain-heartbeat.service; systemctl --failed; journalctl -p err -b | tail -n 40",
            ),
        ],
    },
    Cause {
        name: "bootstrap-unfinished",
        at: &[],
        shows: &[r"the bootstrap has not ended: it is at (?<step>.*)$"],
        general: true,
        what: "its bootstrap has not ended in time: it is still at {step}",
        remedy: &[
            Do("Look again in a minute; if it stays there, look at what it is doing on the host:"),
            Run("m8trx diagnose {id}"),
            Run("tail -n 40 /var/log/m8trx-bootstrap.log; ps -ef --forest | tail -n 40"),
        ],
    },
];
