//! Packages: apt, dpkg, the image's sources.

use super::Advice::{Do, Run};
use super::{APT, Cause};

const AGAIN: &str = "sudo bash /var/lib/cloud/instance/scripts/part-001";
const SOURCES: &str = "sudo apt-get update; cat /etc/os-release | head -n 2; ls -l /etc/apt/sources.list.d /etc/apt/trusted.gpg.d /usr/share/keyrings; grep -rv '^#' /etc/apt/sources.list /etc/apt/sources.list.d";

pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "no-apt",
        at: APT,
        shows: &[r"apt-get: (?:command )?not found"],
        what: "the image is neither Debian nor Ubuntu: it has no apt-get, and bootstrap.sh cannot set it up",
        remedy: &[
            Do(
                "Leave --ami out for Ubuntu 22.04 (Amazon Linux, Red Hat and Bottlerocket will not do), and launch another:",
            ),
            Run("m8trx onboard {customer}"),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "package-lock-held",
        at: APT,
        shows: &[
            r"(?:^|E: |failed: |s: )Could not get lock (?<lock>/\S+?)\.? .*held by process (?<pid>\d+) \((?<process>[^)]+)\)",
        ],
        what: "another process holds apt's lock ({lock}): {process}",
        remedy: LOCK,
        ..Cause::NEW
    },
    Cause {
        name: "package-lock-held",
        variant: "nameless",
        at: APT,
        shows: &[
            r"(?:^|E: |failed: |s: )Could not get lock /\S+",
            r"Unable to acquire the dpkg frontend lock",
            r"Unable to lock (?:directory|the administration directory|the download directory)",
            r"dpkg frontend lock (?:is|was) locked by another process",
        ],
        what: "another process holds apt's lock",
        remedy: LOCK,
        ..Cause::NEW
    },
    Cause {
        name: "package-missing",
        at: APT,
        shows: &[
            r"Unable to locate package (?<package>[a-z0-9][a-z0-9.+-]*)",
            r"Package '?(?<package>[a-z0-9][a-z0-9.+-]*)'? has no installation candidate",
        ],
        what: "the image's package archive has no package {package}",
        remedy: &[
            Do(
                "Leave --ami out for Ubuntu 22.04, whose archive has all of them, or enable the image's missing component (`universe` on Ubuntu). On the host:",
            ),
            Run(
                "cat /etc/os-release /etc/apt/sources.list /etc/apt/sources.list.d/*; apt-cache policy {package}",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "packages-held",
        at: APT,
        shows: &[
            r"you have held broken packages",
            r"Unmet dependencies",
            r"unmet dependencies",
            r"pkgProblemResolver::Resolve generated breaks",
            r"Unable to correct dependencies",
        ],
        beside: &[
            r"(?:Depends|PreDepends|Conflicts|Breaks|Recommends): ",
            r"but (?:it is not|\S+ is to be) install",
        ],
        what: "the image's packages do not fit together: a package that is needed cannot be installed beside what is there or held",
        remedy: &[
            Do(
                "On the host, see which package and which dependency, and what is held; put the sources right (packages of another release, mostly), then run user-data again:",
            ),
            Run(
                "apt-mark showhold; sudo apt-get --fix-broken --simulate install; sudo apt-get --simulate install awscli jq; apt-cache policy awscli",
            ),
            Run(AGAIN),
            Do("Or take another image: leave --ami out for Ubuntu 22.04."),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "apt-hook-broken",
        at: APT,
        shows: &[
            r"Problem executing scripts (?<hook>\S+) '(?<script>.*)'",
            r"Problem executing scripts (?<hook>\S+) (?<script>.*)$",
        ],
        beside: &[r"^sh: \d+: ", r"Traceback", r"Error: ", r"cnf-update-db"],
        what: "a hook of the image that apt runs ({hook}) is broken",
        remedy: &[
            Do(
                "On the host, find the file that sets it and remove it, or repair what it calls (for cnf-update-db: command-not-found, which breaks where python3 was replaced); then run user-data again:",
            ),
            Run("grep -rl {hook} /etc/apt/apt.conf.d"),
            Run(
                "sudo apt-get remove -y command-not-found || sudo rm -f /etc/apt/apt.conf.d/50command-not-found",
            ),
            Run(AGAIN),
            Do("Repair the image for later hosts, or leave --ami out."),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "repository-expired",
        at: APT,
        shows: &[r"Release file for (?<url>\S+) is expired"],
        what: "the package list of {url} has expired: its mirror is no longer renewed",
        or: &["the host's clock is ahead"],
        remedy: &[
            Do("Which of them: the host's time, against the true one:"),
            Run("timedatectl; date -u; curl -sI http://archive.ubuntu.com | grep -i '^date'"),
            Do(
                "Where the time is right, point the image's sources at a mirror that is kept, or remove that repository; then run user-data again.",
            ),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "repository-untrusted",
        variant: "key-expired",
        at: APT,
        shows: &[r"(?:EXPKEYSIG|KEYEXPIRED|EXPSIG) ?(?<key>[0-9A-F]*)"],
        beside: &[r"GPG error: (?<url>https?://\S+)"],
        what: "the key that signs a package repository of the image has expired ({key})",
        remedy: &[
            Do(
                "Get the repository's renewed key, or remove its list, where the host does not need it; the line above names it. On the host:",
            ),
            Run(
                "grep -rl \"$(echo {url} | cut -d/ -f3)\" /etc/apt/sources.list /etc/apt/sources.list.d",
            ),
            Do("Then run user-data again, and do the same in the image."),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "repository-untrusted",
        at: APT,
        shows: &[
            r"NO_PUBKEY (?<key>[0-9A-F]+)",
            r"(?:BADSIG|REVKEYSIG|ERRSIG|NODATA) ?(?<key>[0-9A-F]*)",
            r"(?<key>At least one invalid signature) was encountered",
        ],
        what: "apt does not trust a package repository of the image ({key})",
        remedy: &[
            Do(
                "An image with outdated keys, or a mirror that is not what it says: renew the key or remove that repository; or leave --ami out for Ubuntu 22.04. On the host:",
            ),
            Run(SOURCES),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "repository-changed",
        at: APT,
        shows: &[r"Repository '(?<repository>[^']+)' changed its '(?<field>\w+)' value"],
        what: "the repository {repository} has changed its '{field}' since the image was made, and apt asks whether that is meant",
        remedy: &[
            Do(
                "On the host, accept it once, then run user-data again; make the image anew for later hosts:",
            ),
            Run("sudo apt-get update --allow-releaseinfo-change"),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "repository-untrusted",
        variant: "unsigned",
        at: APT,
        shows: &[r"The repository '(?<repository>[^']*)' is (?:not|no longer) signed"],
        general: true,
        what: "a package repository of the image is not signed, so apt does not use it: {repository}",
        remedy: &[
            Do(
                "Its mirror is broken, or is not what it says, or the repository was dropped: remove or correct it; or leave --ami out for Ubuntu 22.04. On the host:",
            ),
            Run(SOURCES),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "apt-sources-broken",
        at: APT,
        shows: &[
            r"(?<problem>Malformed (?:entry|line|stanza) .*)$",
            r"(?<problem>Type '[^']*' is not known on line .*)$",
            r"(?<problem>Conflicting values set for option Signed-By .*)$",
            r"(?<problem>The list of sources could not be read)",
            r"(?<problem>The method driver \S+ could not be found)",
            r"(?<problem>Syntax error \S*/etc/apt/\S+)",
        ],
        what: "the image's apt sources or settings are broken: {problem}",
        remedy: &[
            Do(
                "On the host, correct or remove the file that the line names, then run user-data again; repair the image for later hosts:",
            ),
            Run(
                "ls -l /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf.d; sudo apt-get update",
            ),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "apt-lists-broken",
        at: APT,
        shows: &[
            r"The package lists or status file could not be parsed",
            r"Encountered a section with no Package: header",
            r"Problem with MergeList",
            r"The package cache file is corrupted",
            r"List directory \S+ is missing\. - Acquire \(2: ",
        ],
        what: "apt's own lists on the image are broken",
        remedy: &[
            Do("On the host, let apt fetch them anew, then run user-data again:"),
            Run(
                "sudo rm -rf /var/lib/apt/lists && sudo mkdir -p /var/lib/apt/lists/partial && sudo apt-get update",
            ),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "file-unwritable",
        variant: "tmp",
        at: APT,
        shows: &[
            r"Couldn't create temporary file (?<path>/\S+)",
            r"Unable to (?:mkstemp|write to) (?<path>/\S+)",
        ],
        what: "apt cannot write {path}: the folder's mode or its file system does not let it",
        remedy: &[
            Do(
                "On the host, /tmp must have the mode 1777 and some room; then run user-data again:",
            ),
            Run("sudo chmod 1777 /tmp; df -h /tmp /var; findmnt /tmp"),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "dpkg-failed",
        variant: "package",
        at: APT,
        shows: &[r"dpkg: error processing (?:package|archive) (?<package>\S+)"],
        beside: &[
            r"subprocess returned error",
            r"post-installation script",
            r"trying to overwrite",
        ],
        what: "the package {package} was fetched and could not be installed",
        remedy: &[
            Do(
                "On the host, finish what dpkg began and see what it says, then run user-data again:",
            ),
            Run(
                "sudo dpkg --configure -a; sudo tail -n 30 /var/log/dpkg.log /var/log/apt/term.log",
            ),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "dpkg-failed",
        at: APT,
        shows: &[
            r"Sub-process \S+ (?:returned an error code|received|exited unexpectedly|was)",
            r"dpkg was interrupted, you must manually run",
            r"needs to be reinstalled, but I can't find an archive",
        ],
        general: true,
        what: "a package was fetched and could not be installed",
        remedy: &[
            Do(
                "On the host, finish what dpkg began and see what it says, then run user-data again:",
            ),
            Run(
                "sudo dpkg --configure -a; sudo tail -n 30 /var/log/dpkg.log /var/log/apt/term.log",
            ),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "mirror-down",
        variant: "release-gone",
        at: APT,
        shows: &[
            r"The repository '(?<repository>[^']*)' (?:does not have|no longer has) a Release file",
            r"Failed to fetch (?<repository>\S+/(?:In)?Release\S*)\s+404 ",
        ],
        what: "the mirror has nothing (any more) for a repository of the image: {repository}",
        remedy: &[
            Do(
                "The image's release has reached its end and was moved to old-releases.ubuntu.com or archive.debian.org, or a list of the image names what never was there. Leave --ami out for Ubuntu 22.04, or correct or remove that list. On the host:",
            ),
            Run(SOURCES),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "mirror-down",
        at: APT,
        shows: &[
            r"Failed to fetch \S+\s+(?:Could not connect|Unable to connect|Connection |Cannot initiate the connection|Error reading from server|Undetermined Error|Hash Sum mismatch|File has unexpected size|Bad header|Could not wait|[45]\d\d )",
            r"Hash Sum mismatch",
            r"File has unexpected size \(\d+ != \d+\)",
            r"\(\d+ != \d+\)\. .*\[IP: ",
        ],
        what: "the package mirror does not answer, answers with an error, or is just being renewed",
        remedy: &[
            Do(
                "Mostly a mirror that is away or inconsistent for a moment: run user-data again in some minutes.",
            ),
            Run(AGAIN),
            Do(
                "If it happens again, take another mirror in the image's sources; what this one answers, on the host:",
            ),
            Run(
                "sudo apt-get update; grep -rhv '^#' /etc/apt/sources.list /etc/apt/sources.list.d | head -n 20",
            ),
        ],
        ..Cause::NEW
    },
    Cause {
        name: "mirror-down",
        variant: "unsaid",
        at: APT,
        shows: &[
            r"Unable to fetch some archives",
            r"Some index files failed to download",
        ],
        general: true,
        what: "the package mirror does not give all that is asked for",
        or: &["the subnet has no way out"],
        remedy: &[
            Do("Which of them: on the host, this names what fails, and how:"),
            Run("sudo apt-get update"),
            Do(
                "Time-outs: the subnet needs a route 0.0.0.0/0 to a NAT or internet gateway. Else run user-data again in some minutes:",
            ),
            Run(AGAIN),
        ],
        ..Cause::NEW
    },
];

const LOCK: &[super::Advice] = &[
    Do(
        "Mostly apt-daily or unattended-upgrades, which run at the first boot. On the host, see who holds it, wait until it has finished, then run user-data again:",
    ),
    Run(
        "sudo lsof /var/lib/dpkg/lock-frontend /var/lib/apt/lists/lock; ps -ef | grep -E 'apt|dpkg|unattended'",
    ),
    Run(AGAIN),
    Do(
        "If it happens to each host of an image: mask apt-daily.timer, apt-daily-upgrade.timer and unattended-upgrades in it.",
    ),
];
