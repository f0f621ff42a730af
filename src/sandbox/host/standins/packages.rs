//! The packages that the host's archive has, and which of them are installed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::OWN_BINARY;

/// Where dpkg keeps what is installed; in dpkg's own format.
const STATUS: &str = "/var/lib/dpkg/status";
/// Where the machine's own programs are, for packages whose command it has.
const MACHINE_PROGRAMS: &str = "/.m8trx/machine/usr/bin";

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// On the image already.
    Image,
    /// Ubuntu's archive, after `apt-get update`.
    Archive,
    /// Tailscale's own repository, once it is in the sources.
    Tailscale,
}

/// A package of the host's archive.
#[derive(Debug)]
pub(super) struct Package {
    pub name: &'static str,
    pub version: &'static str,
    pub source: Source,
    /// Commands it brings to `/usr/bin`.
    commands: &'static [&'static str],
    /// Bytes to download; the archive's own figures.
    pub size: u64,
}

const fn image(name: &'static str, version: &'static str) -> Package {
    Package {
        name,
        version,
        source: Source::Image,
        commands: &[],
        size: 0,
    }
}

const fn archive(
    name: &'static str,
    version: &'static str,
    size: u64,
    commands: &'static [&'static str],
) -> Package {
    Package {
        name,
        version,
        source: Source::Archive,
        commands,
        size,
    }
}

/// Ubuntu 22.04's packages that host scripts usually ask for.
const PACKAGES: [Package; 39] = [
    image("apt-transport-https", "2.4.13"),
    image("bash", "5.1-6ubuntu1.1"),
    image("ca-certificates", "20240203~22.04.1"),
    image("coreutils", "8.32-4.1ubuntu1.2"),
    image("cron", "3.0pl1-137ubuntu3"),
    image("curl", "7.81.0-1ubuntu1.20"),
    image("gnupg", "2.2.27-3ubuntu2.3"),
    image("gpg", "2.2.27-3ubuntu2.3"),
    image("gzip", "1.10-4ubuntu4.1"),
    image("iproute2", "5.15.0-1ubuntu2"),
    image("iputils-ping", "3:20211215-1"),
    image("lsb-release", "11.1.0ubuntu4"),
    image("openssl", "3.0.2-0ubuntu1.19"),
    image("python3", "3.10.6-1~22.04.1"),
    image("software-properties-common", "0.99.22.9"),
    image("sudo", "1.9.9-1ubuntu2.5"),
    image("systemd", "249.11-0ubuntu3.16"),
    image("tar", "1.34+dfsg-1ubuntu0.1.22.04.2"),
    image("tzdata", "2025b-0ubuntu0.22.04"),
    image("wget", "1.21.2-2ubuntu1.1"),
    archive("awscli", "1.22.34-1", 1_233_000, &["aws"]),
    archive("build-essential", "12.9ubuntu3", 4_744, &[]),
    archive("docker-compose", "1.29.2-1", 95_800, &[]),
    archive(
        "docker.io",
        "27.5.1-0ubuntu3~22.04.2",
        33_200_000,
        &["docker"],
    ),
    archive("git", "1:2.34.1-1ubuntu1.15", 3_166_000, &["git"]),
    archive("htop", "3.0.5-7build2", 128_000, &["htop"]),
    archive("jq", "1.6-2.1ubuntu3.1", 52_500, &["jq"]),
    archive("moreutils", "0.66-1", 60_600, &[]),
    archive("netcat-openbsd", "1.218-4ubuntu1", 39_400, &["nc"]),
    archive("nginx", "1.18.0-6ubuntu14.7", 3_872, &[]),
    archive("nodejs", "12.22.9~dfsg-1ubuntu3.6", 122_000, &["node"]),
    archive("postgresql-client", "14+238", 3_292, &[]),
    archive(
        "python3-pip",
        "22.0.2+dfsg-1ubuntu0.6",
        1_306_000,
        &["pip3"],
    ),
    archive("python3-venv", "3.10.6-1~22.04.1", 1_042, &[]),
    archive("tree", "2.0.2-1", 47_900, &["tree"]),
    archive("unzip", "6.0-26ubuntu3.2", 175_000, &["unzip"]),
    archive("vim", "2:8.2.3995-1ubuntu2.24", 1_727_000, &["vim"]),
    archive("zip", "3.0-12build2", 176_000, &["zip"]),
    Package {
        name: "tailscale",
        version: "1.90.8",
        source: Source::Tailscale,
        commands: &["tailscale", "tailscaled"],
        size: 34_100_000,
    },
];

const TAILSCALED_UNIT: &str = "\
[Unit]
Description=Tailscale node agent
Documentation=https://tailscale.com/kb/
Wants=network-pre.target
After=network-pre.target

[Service]
ExecStart=/usr/bin/tailscaled --state=/var/lib/tailscale/tailscaled.state --socket=/run/tailscale/tailscaled.sock
Restart=on-failure
RuntimeDirectory=tailscale
RuntimeDirectoryMode=0755
StateDirectory=tailscale
StateDirectoryMode=0700

[Install]
WantedBy=multi-user.target
";

const DOCKER_UNIT: &str = "\
[Unit]
Description=Docker Application Container Engine
Documentation=https://docs.docker.com

[Service]
Type=oneshot
ExecStart=/bin/true
RemainAfterExit=yes

[Install]
WantedBy=multi-user.target
";

/// The package of this name, if any archive has it.
pub(super) fn find(name: &str) -> Option<&'static Package> {
    PACKAGES.iter().find(|package| package.name == name)
}

/// Writes the state of a fresh image.
pub(super) fn install_base(root: &Path) -> io::Result<()> {
    let image = PACKAGES
        .iter()
        .filter(|package| package.source == Source::Image);
    let status: String = image.map(stanza).collect();
    fs::write(root.join(STATUS.trim_start_matches('/')), status)
}

fn stanza(package: &Package) -> String {
    let architecture = architecture();
    format!(
        "Package: {}\nStatus: install ok installed\nPriority: optional\nArchitecture: {architecture}\nVersion: {}\n\n",
        package.name, package.version
    )
}

/// Debian's name of this machine's architecture.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The version that is installed.
pub(super) fn installed(name: &str) -> Option<String> {
    let status = fs::read_to_string(STATUS).ok()?;
    let wanted = format!("Package: {name}");
    let stanza = status
        .split("\n\n")
        .find(|stanza| stanza.lines().any(|line| line == wanted))?;
    stanza
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .map(str::to_owned)
}

/// Installs a package: its commands appear, its service is enabled and started as its maintainer script does.
pub(super) fn install(package: &Package) -> io::Result<()> {
    for command in package.commands {
        let target = Path::new("/usr/bin").join(command);
        if target.is_symlink() {
            continue;
        }
        let machine = Path::new(MACHINE_PROGRAMS).join(command);
        if super::replaces(command) && !(*command == "jq" && machine.exists()) {
            symlink(OWN_BINARY, target)?;
        } else if machine.exists() {
            symlink(machine, target)?;
        }
    }
    let units = Path::new("/usr/local/lib/systemd/system");
    let unit = match package.name {
        "tailscale" => Some(("tailscaled.service", TAILSCALED_UNIT)),
        "docker.io" => Some(("docker.service", DOCKER_UNIT)),
        _ => None,
    };
    if let Some((name, text)) = unit {
        fs::create_dir_all(units)?;
        fs::write(units.join(name), text)?;
        super::systemctl::enable_package_unit(name);
    }
    let mut status = fs::read_to_string(STATUS)?;
    status.push_str(&stanza(package));
    fs::write(STATUS, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bootstrap_needs_is_there_and_fresh() {
        for name in ["awscli", "jq", "docker.io"] {
            assert_eq!(find(name).unwrap().source, Source::Archive, "{name}");
        }
        for name in ["curl", "ca-certificates"] {
            assert_eq!(find(name).unwrap().source, Source::Image, "{name}");
        }
        assert!(find("aws-cli").is_none());
    }

    #[test]
    fn the_units_of_packages_are_accepted() {
        for text in [TAILSCALED_UNIT, DOCKER_UNIT] {
            assert!(text.contains("[Install]\nWantedBy=multi-user.target"));
        }
    }
}
