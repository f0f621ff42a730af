//! The boot before the bootstrap, and what ends a boot at any point.

use super::Advice::{Do, Run};
use super::{BOOT_DONE, BOOT_SOURCELESS, BOOT_STUCK, Cause, DOWN, HALT};
use crate::diagnosis::CONSOLE;

const SCREEN: &str = "aws ec2 get-console-screenshot --instance-id {id} --region {region} --wake-up --query ImageData --output text | base64 -d >screen.jpg";
const LATEST: &str =
    "aws ec2 get-console-output --latest --output text --instance-id {id} --region {region}";
const USER_DATA: &str = "aws ec2 describe-instance-attribute --instance-id {id} --region {region} --attribute userData --query UserData.Value --output text | base64 -d | head -n 3 | cat -A";
const RESCUE: &str = "To repair this host instead, attach its root volume to another one; on one of Nitro the serial console lets you in, where it is enabled:";
const SERIAL: &str = "aws ec2-instance-connect send-serial-console-ssh-public-key --region {region} --instance-id {id} --ssh-public-key file://KEY.pub";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "out-of-memory",
        variant: "panic",
        at: &[HALT],
        shows: &[
            r"Kernel panic - not syncing: (?:Out of memory|out of memory|System is deadlocked on memory)",
        ],
        what: "the host ran out of memory, and its kernel gave up",
        remedy: &[Do(
            "Launch with more memory: --instance-type t3.small has 2 GiB, t3.medium 4 GiB",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "image-does-not-boot",
        at: &[HALT],
        shows: &[
            r"Unable to mount root fs",
            r"Cannot open root device",
            r"ALERT! .* does not exist",
            r"[Dd]ropping to a shell",
            r"dracut-initqueue.*[Tt]imeout",
            r"dracut.*Could not boot",
            r"^\(initramfs\)",
            r"^grub(?: rescue)?>",
            r"No bootable device",
            r"Boot failed: not a bootable disk",
        ],
        what: "its kernel or boot loader does not find the root file system",
        remedy: &[
            Do(
                "The image's kernel has no driver for this instance type's disks (NVMe, ENA), or its initramfs or fstab names a disk that is not there. Leave --ami out for Ubuntu 22.04, which boots, or repair the image.",
            ),
            Do(RESCUE),
            Run(SERIAL),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "image-does-not-boot",
        variant: "panic",
        at: &[HALT],
        shows: &[r"Kernel panic - not syncing: (?<why>.*)$"],
        beside: &[r"switch_root: ", r"can't execute", r"Failed to execute /"],
        what: "its kernel panics: {why}",
        remedy: &[
            Do(
                "What runs first in user space is missing or broken, mostly after an upgrade that was cut off, or in an image made from one; a kernel update shows at the next reboot. Launch another host (leave --ami out for Ubuntu 22.04, which boots):",
            ),
            Run("m8trx onboard {customer}"),
            Do(RESCUE),
            Run(SERIAL),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "image-does-not-boot",
        variant: "emergency",
        at: &[HALT],
        shows: &[
            r"You are in (?:emergency|rescue) mode",
            r"Welcome to (?:emergency|rescue) mode",
            r"Cannot open access to console, the root account is locked",
            r"Give root password for maintenance",
            r"UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY",
        ],
        beside: &[
            r"Timed out waiting for device (?<device>\S+?)\.?$",
            r"Dependency failed for (?<mount>/\S*?)\.?$",
            r"Failed to mount (?<mount>/\S*?)\.?$",
            r"Failed to start File System Check",
        ],
        what: "it boots into emergency mode: a file system that it must mount is not there or is damaged",
        remedy: &[
            Do(
                "An entry of /etc/fstab in the image names a volume that this instance does not have, or that needs a check. In the image, remove the entry, or give it the options `nofail,x-systemd.device-timeout=10`; then launch another. Or leave --ami out for Ubuntu 22.04.",
            ),
            Do(RESCUE),
            Run(SERIAL),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "bootstrap-interrupted",
        shows: &[r"^ended by signal (?:1|2|15)$", r"^stopped by SIG[A-Z]+"],
        what: "something ended the bootstrap in the middle, mostly because the host was shut down or rebooted",
        remedy: AGAIN,
        ..Cause::NEW
    },
    Cause {
        name: "bootstrap-interrupted",
        variant: "reboot",
        at: &[DOWN],
        shows: &[
            r"the host booted again in the middle of (?<step>.*)$",
            r"reboot: (?:Restarting system|Power down|System halted|machine restart)",
            r"systemd-shutdown\[\d+\]",
            r"Reached target .*(?:System Reboot|System Power Off|Reboot|Power-Off|Shutdown)",
            r"The system (?:is going down|will reboot|will power off)",
            r"systemd\[1\]: (?:Shutting down|Rebooting|Powering off)",
        ],
        what: "the host went down in the middle of its bootstrap, and user-data does not run again at the next boot",
        remedy: AGAIN,
        ..Cause::NEW
    },
    Cause {
        name: "user-data-mangled",
        at: &[BOOT_DONE, BOOT_STUCK],
        shows: &[
            r"Unhandled (?:non-multipart|unknown content-type)",
            r"Missing #! in script",
            r"Exec format error",
            r"part-\d+: line \d+: (?:syntax error|unexpected EOF)",
            r"part-\d+: .*\$'\\r'",
            r"bad interpreter",
            r"part-\d+: cannot execute",
        ],
        what: "user-data ran or was to run, but it is not bootstrap.sh as it should be",
        remedy: &[
            Do(
                "See how it begins; the first line must be #!/bin/bash. Usual reasons: no such line, encoded in base64 twice, Terraform's templatefile() instead of file(), line ends of Windows:",
            ),
            Run(USER_DATA),
            Do("This is what it should be:"),
            Run("m8trx user-data"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "user-data-mangled",
        variant: "other-script",
        at: &[BOOT_DONE],
        shows: &[r"Failed running \S*/scripts/part-\d+ \[(?<exit>\S+)\]"],
        general: true,
        what: "user-data ran and failed with {exit}, but it is not bootstrap.sh, which would have said how far it came",
        remedy: &[
            Do("See what it is:"),
            Run(USER_DATA),
            Do("This is what it should be:"),
            Run("m8trx user-data"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "metadata-unreachable",
        variant: "boot",
        at: &[BOOT_SOURCELESS],
        shows: &[
            r"IMDS's HTTP endpoint is probably disabled",
            r"Fatal error while requesting Ec2 IMDSv2 API tokens",
            r"[Gg]iving up on (?:md|metadata) from \S*169\.254\.169\.254",
            r"Calling '?http://169\.254\.169\.254\S* failed",
        ],
        what: "cloud-init got no answer from the metadata service, so the host has no user-data and does not know whose it is",
        remedy: METADATA,
        ..Cause::NEW
    },
    Cause {
        name: "metadata-unreachable",
        variant: "sourceless",
        at: &[BOOT_SOURCELESS],
        shows: &[r"^cloud-init has finished without a source of data$"],
        beside: &[r"Used fallback datasource", r"DataSourceNone"],
        general: true,
        what: "cloud-init found no source of data, so the host has no user-data: it got no answer from the metadata service",
        or: &["the image's cloud-init does not look for EC2 (its datasource_list)"],
        remedy: METADATA,
    },
    Cause {
        name: "metadata-unreachable",
        variant: "trying",
        at: &[BOOT_STUCK],
        shows: &[
            r"[Gg]iving up on (?:md|metadata) from \S*169\.254\.169\.254",
            r"IMDS's HTTP endpoint is probably disabled",
            r"Calling '?http://169\.254\.169\.254\S* failed \[(?:[6-9]\d|1\d\d)/",
        ],
        what: "cloud-init gets no answer from the metadata service",
        remedy: METADATA,
        ..Cause::NEW
    },
    Cause {
        name: "network-not-up",
        at: &[BOOT_STUCK],
        shows: &[
            r"job is running for Wait for.*(?:Network|Configured|Online)",
            r"job is running for .*(?:Raise network|Wait Online|[Nn]etwork.*online)",
            r"Failed to start .*(?:Wait for Network|Wait Online|Raise network interfaces)",
        ],
        what: "the boot waits for the network, which does not come up; cloud-init has not run yet",
        remedy: &[
            Do(
                "The image's network settings are for another interface name or address (netplan of the instance it was made from, mostly), or it lacks the ENA driver. Wait some minutes, then ask again:",
            ),
            Run(LATEST),
            Do(
                "See the interface and its state; then take Ubuntu 22.04 (leave --ami out), or repair the image:",
            ),
            Run(
                "aws ec2 describe-instances --instance-ids {id} --region {region} --query 'Reservations[].Instances[].[EnaSupport,NetworkInterfaces[].[Status,Attachment.Status,SubnetId]]'",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "boot-unfinished",
        at: &[BOOT_STUCK],
        shows: &[r"^the console ends before cloud-init has run user-data$"],
        general: true,
        what: "the console ends before cloud-init has run user-data: it says nothing yet",
        remedy: &[
            Do("EC2 keeps a console of some minutes ago. Ask again, for the latest:"),
            Run(LATEST),
            Do("If it ends at the same line, the boot hangs there; look at its screen:"),
            Run(SCREEN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "user-data-never-ran",
        at: &[BOOT_DONE],
        shows: &[r"^cloud-init has finished, and nothing of the bootstrap is on the console$"],
        general: true,
        what: "the host booted, and its console shows nothing of the bootstrap: user-data never ran",
        remedy: &[
            Do(
                "A host that was stopped and started does not run it again; then see on it why it does not report: journalctl -u m8trx-brain-heartbeat -n 20. Otherwise see whether it has user-data at all; its first line must be #!/bin/bash:",
            ),
            Run(USER_DATA),
            Do(
                "If it has, the image has no working cloud-init, or an instance made of this image ran it before: take Ubuntu 22.04 (leave --ami out)",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "log-begins-late",
        at: &[CONSOLE],
        shows: &[r"^the beginning of the console is cut off$"],
        general: true,
        what: "the log begins late: what this boot did before is cut off, and the rest does not say why the host does not report",
        remedy: &[
            Do("EC2 keeps the last 64 KB of a console. The host itself has all of it:"),
            Run("sudo cat /var/log/m8trx-bootstrap.log"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "not-a-console",
        at: &[CONSOLE],
        shows: &[r"^this is no console log$"],
        general: true,
        what: "this text is no console log of a host, so it says nothing about one",
        remedy: &[
            Do("This is how a console is fetched; it can be piped in as well (--console -):"),
            Run(
                "aws ec2 get-console-output --latest --output text --instance-id {id} --region {region} >console.log",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "no-console",
        at: &[CONSOLE],
        shows: &[r"^the console is empty$"],
        general: true,
        what: "the host has not reported, and EC2 shows nothing of its console",
        remedy: &[
            Do(
                "Only instances on Nitro show their console at once, others after minutes; some images write nothing to it. Ask again, and look at its screen:",
            ),
            Run("m8trx diagnose {id}"),
            Run(SCREEN),
            Do("What EC2 itself sees of it:"),
            Run(
                "aws ec2 describe-instance-status --include-all-instances --instance-ids {id} --region {region}",
            ),
        ],
        ..Cause::NEW
    },
];

const AGAIN: &[super::Advice] = &[
    Do(
        "When the host is up again, run user-data again on it; it is safe to repeat. What rebooted it: `last -x | head` and `journalctl -b -1 -n 50`.",
    ),
    Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
];

const METADATA: &[super::Advice] = &[
    Do(
        "Its endpoint must be enabled, and no firewall or route of the image may block 169.254.169.254:",
    ),
    Run(
        "aws ec2 describe-instances --instance-ids {id} --region {region} --query 'Reservations[].Instances[].MetadataOptions'",
    ),
    Run(
        "aws ec2 modify-instance-metadata-options --instance-id {id} --region {region} --http-endpoint enabled --http-tokens required --instance-metadata-tags enabled",
    ),
    Do("cloud-init asks again only for a new instance: launch another."),
];
