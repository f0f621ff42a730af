//! The host itself: its launch settings, its disk and memory, its service manager.

use super::Advice::{Do, Run};
use super::{APT, Cause, SICK};

const MORE_MEMORY: &[super::Advice] = &[Do(
    "Launch with more memory: --instance-type t3.small has 2 GiB, t3.medium 4 GiB",
)];
const DISK: &str = "df -h / && findmnt -o TARGET,OPTIONS / && dmesg | tail -n 30";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "metadata-unreachable",
        at: &["identity"],
        shows: &[r"no metadata for a minute"],
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
        ..Cause::NEW
    },
    Cause {
        name: "customer-tag-missing",
        at: &["identity"],
        shows: &[r"the instance has no Customer tag"],
        what: "the instance has no tag `Customer`, so it does not know whose it is",
        remedy: &[Do(
            "Launch another with the tag; `m8trx onboard` sets it, and by hand it belongs into `--tag-specifications` of the launch",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "customer-tag-malformed",
        at: &["identity"],
        shows: &[r"the Customer tag is no customer id: (?<value>.*)$"],
        what: "the value of its tag `Customer` is no customer id: {value}",
        remedy: &[Do(
            "A customer id is cust_ and then a-z, 0-9 and _, at most 64 characters; launch another with such a tag",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "metadata-tags-disabled",
        at: &["identity"],
        shows: &[r"no tags in the metadata"],
        what: "its launch settings keep the instance's tags out of the metadata, so it does not know whose it is",
        remedy: &[
            Do(
                "Correct whatever launched it (InstanceMetadataTags=enabled), and this host, on which user-data can then run again:",
            ),
            Run(
                "aws ec2 modify-instance-metadata-options --instance-id {id} --region {region} --instance-metadata-tags enabled",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "not-root",
        at: &["identity"],
        shows: &[r"it must run as root"],
        what: "bootstrap.sh was not run as root",
        remedy: &[
            Do("As user-data it is; by hand:"),
            Run("sudo bash bootstrap.sh"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "inotify-used-up",
        shows: &[
            r"directory watch: No space left on device",
            r"inotify.*(?:No space left on device|Too many open files)",
            r"inotify (?:watch|instance)(?:es)? limit",
        ],
        what: "the host's inotify watches are used up (its disk is not full), so systemd cannot watch what it starts",
        remedy: &[
            Do(
                "On the host, allow more of them, and see which unit failed; then run user-data again:",
            ),
            Run(
                "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512; systemctl --failed; systemctl status m8trx-brain-heartbeat.service",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "disk-full",
        shows: &[
            r"No space left on device",
            r"You don't have enough free space in",
            r"Disk quota exceeded",
        ],
        what: "the root volume is full",
        remedy: &[
            Do(
                "Launch with a larger root volume; `m8trx onboard` asks for at least 20 GiB. This one's size:",
            ),
            Run(
                "aws ec2 describe-volumes --region {region} --filters Name=attachment.instance-id,Values={id} --query 'Volumes[].[VolumeId,Size]' --output table",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "file-unwritable",
        variant: "read-only-root",
        at: &[SICK],
        shows: &[
            r"EXT4-fs error \(device (?<device>\w+)\)",
            r"EXT4-fs \((?<device>\w+)\): Remounting filesystem read-only",
            r"XFS \((?<device>\w+)\): .*(?:[Ss]hutting down filesystem|[Ff]ilesystem has been shut down|Corruption)",
            r"BTRFS.*\(device (?<device>\w+)\).*forced readonly",
            r"I/O error,? (?:on )?dev (?<device>(?:nvme|xvd|sd|vd)\w+)",
        ],
        what: "its disk {device} fails, and the kernel has made the file system read-only",
        remedy: FAILED_DISK,
        ..Cause::NEW
    },
    Cause {
        name: "file-unwritable",
        variant: "read-only-apt",
        at: APT,
        shows: &[
            r"\(30: Read-only file system\)",
            r"Not using locking for read only lock file",
        ],
        beside: &[r"Remounting filesystem read-only", r"EXT4-fs error"],
        what: "the root file system has become read-only, mostly after an error of its disk",
        remedy: FAILED_DISK,
        ..Cause::NEW
    },
    Cause {
        name: "out-of-memory",
        at: &[SICK],
        shows: &[
            r"^(?:Out of memory: )?Kill(?:ed)? process \d+,? \(?(?<process>apt\S*?|dpkg\S*?|aws|python3?\S*?|curl|gpgv?|https?|unzip|bash|sh|part-\d+|cloud-init|tailscaled?|systemd\S*?|m8trx\S*?|needrestart|gzip|xz|tar)\)",
        ],
        what: "the host ran out of memory, and the kernel ended {process}",
        remedy: MORE_MEMORY,
        ..Cause::NEW
    },
    Cause {
        name: "out-of-memory",
        variant: "other",
        at: &[SICK],
        shows: &[r"^(?:Out of memory: )?Kill(?:ed)? process \d+,? \(?(?<process>[^) ,]*)\)?"],
        general: true,
        what: "the host ran out of memory, and the kernel ended {process}",
        remedy: MORE_MEMORY,
        ..Cause::NEW
    },
    Cause {
        name: "out-of-memory",
        variant: "command",
        shows: &[
            r"part-\d+: line \d+: +\d+ Killed ",
            r"[Cc]annot allocate memory",
            r"fork: retry: Resource temporarily unavailable",
            r"^ended by signal 9$",
        ],
        what: "a command of the bootstrap was ended or could not start, mostly because the host ran out of memory",
        remedy: MORE_MEMORY,
        ..Cause::NEW
    },
    Cause {
        name: "file-unwritable",
        shows: &[
            r"(?<path>/[A-Za-z0-9._/-]+) could not be written",
            r"(?<path>/[A-Za-z0-9._/-]+): Read-only file system",
        ],
        general: true,
        what: "{path} could not be written",
        remedy: &[
            Do("A problem of the host or its image: a read-only or full file system. On the host:"),
            Run(DISK),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "dpkg-failed",
        variant: "service",
        at: APT,
        shows: &[r"Job for (?<unit>\S+\.service) failed because"],
        what: "the service {unit} of a package does not start",
        remedy: &[
            Do("On the host, see why, then run user-data again:"),
            Run(
                "systemctl status {unit}; journalctl -u {unit} -n 40 --no-pager; sudo dpkg --configure -a",
            ),
            Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "systemd-failed",
        variant: "not-pid-1",
        shows: &[
            r"has not been booted with systemd as init",
            r"Failed to connect to bus: (?:Host is down|No such file or directory)",
            r"systemctl: (?:command )?not found",
        ],
        what: "the host does not run systemd as its first process, so nothing can start the heartbeat",
        remedy: &[Do(
            "The image must boot with systemd: leave --ami out for Ubuntu 22.04. (A container or a chroot is no host.)",
        )],
        ..Cause::NEW
    },
    Cause {
        name: "systemd-failed",
        shows: &[
            r"command failed: systemctl",
            r"Failed to (?:reload daemon|connect to bus|enable unit|start \S*m8trx|get properties)",
            r"Job for m8trx\S+ failed",
        ],
        general: true,
        what: "the host's service manager failed",
        remedy: &[
            Do("A genuine problem of the host. On it, look at what systemd says:"),
            Run(
                "systemctl status m8trx-brain-heartbeat.timer m8trx-brain-heartbeat.service; systemctl --failed; journalctl -p err -b | tail -n 40",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "bootstrap-unfinished",
        shows: &[r"the bootstrap has not ended: it is at (?<step>.*)$"],
        general: true,
        what: "its bootstrap has not ended in time: it is still at {step}",
        remedy: &[
            Do("Look again in a minute; if it stays there, look at what it is doing on the host:"),
            Run("m8trx diagnose {id}"),
            Run("tail -n 40 /var/log/m8trx-bootstrap.log; ps -ef --forest | tail -n 40"),
        ],
        ..Cause::NEW
    },
];

const FAILED_DISK: &[super::Advice] = &[
    Do("Nothing on this host can be trusted to be written: launch another."),
    Run("m8trx onboard {customer}"),
    Do(
        "To keep it: replace the root volume from a snapshot, or check the file system from another host. See the volume's state first:",
    ),
    Run(
        "aws ec2 describe-volume-status --region {region} --filters Name=attachment.instance-id,Values={id}",
    ),
];
