//! The host's `/etc`: what a fresh Ubuntu 22.04 has, written anew; only what programs of this machine need to run (the loader's
//! cache, TLS settings, alternatives) is copied. So the operator's accounts, keys, proxies and units are not on the host.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::control::Making;

/// Copied from the machine where they exist; files that not everybody may read are left out.
const COPIED: [&str; 22] = [
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld-musl-x86_64.path",
    "ld-musl-aarch64.path",
    "alternatives",
    "ssl",
    "pki",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "gnutls",
    "bash.bashrc",
    "bashrc",
    "inputrc",
    "services",
    "protocols",
    "gai.conf",
    "host.conf",
    "mime.types",
    "terminfo",
    "locale.alias",
];

/// Larger files in those folders (indexes, archives) are not needed to run anything.
const LARGEST_COPIED: u64 = 4 * 1024 * 1024;

/// Where the distributions keep the bundle of trusted certificates, relative to `/`: Debian, Ubuntu and Arch; Alpine; Fedora;
/// openSUSE.
const CA_BUNDLES: [&str; 6] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/ssl/cert.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "var/lib/ca-certificates/ca-bundle.pem",
];

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
systemd-network:x:100:102:systemd Network Management,,,:/run/systemd:/usr/sbin/nologin
systemd-resolve:x:101:103:systemd Resolver,,,:/run/systemd:/usr/sbin/nologin
messagebus:x:102:105::/nonexistent:/usr/sbin/nologin
sshd:x:106:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
ubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:syslog,ubuntu
tty:x:5:
disk:x:6:
www-data:x:33:
utmp:x:43:
shadow:x:42:
systemd-journal:x:101:
systemd-network:x:102:
systemd-resolve:x:103:
messagebus:x:105:
nogroup:x:65534:
ubuntu:x:1000:
";

const OS_RELEASE: &str = r#"PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04.5 LTS (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME=jammy
"#;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes the host's `/etc` into `etc`, and the certificates that some distributions keep in `/var` into `var`.
pub(super) fn write(etc: &Path, var: &Path, making: &Making) -> io::Result<()> {
    for name in COPIED {
        copy(&Path::new("/etc").join(name), &etc.join(name));
    }
    let mut hosts = "127.0.0.1 localhost\n\n::1 ip6-localhost ip6-loopback\n".to_owned();
    for (address, name) in &making.hosts {
        // Writing into a String cannot fail.
        let _ = writeln!(hosts, "{address} {name}");
    }
    // The machine id is derived, as systemd derives it from the instance on EC2: 32 hexadecimal digits.
    let machine_id: String = making
        .instance_id
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .chain(std::iter::repeat(b'0'))
        .take(32)
        .map(char::from)
        .collect();
    let texts = [
        ("passwd", PASSWD.to_owned()),
        ("group", GROUP.to_owned()),
        ("os-release", OS_RELEASE.to_owned()),
        ("lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\nDISTRIB_CODENAME=jammy\nDISTRIB_DESCRIPTION=\"Ubuntu 22.04.5 LTS\"\n".to_owned()),
        ("debian_version", "bookworm/sid\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n".to_owned()),
        ("hostname", format!("{}\n", making.hostname)),
        ("hosts", hosts),
        // Nothing answers there: an unknown name fails at once, as where no resolver is reachable.
        ("resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad timeout:1 attempts:1\n".to_owned()),
        ("machine-id", format!("{machine_id}\n")),
        ("timezone", "Etc/UTC\n".to_owned()),
        ("environment", format!("PATH=\"{PATH}\"\n")),
        ("profile", format!("export PATH={PATH}\n")),
        ("shells", "/bin/sh\n/bin/bash\n/usr/bin/bash\n".to_owned()),
        ("fstab", String::new()),
        ("apt/sources.list", "deb http://archive.ubuntu.com/ubuntu jammy main universe\n".to_owned()),
    ];
    for (name, text) in texts {
        fs::write(etc.join(name), text)?;
    }
    fs::write(
        etc.join("shadow"),
        "root:*:19000:0:99999:7:::\nubuntu:!:19000:0:99999:7:::\n",
    )?;
    fs::set_permissions(etc.join("shadow"), Permissions::from_mode(0o640))?;
    let zone = "/usr/share/zoneinfo/Etc/UTC";
    if Path::new(zone).exists() {
        symlink(zone, etc.join("localtime"))?;
    }
    symlink("/proc/mounts", etc.join("mtab"))?;
    if let Some(every) = making.conditions.heartbeat_every {
        hurry(etc, every)?;
    }
    trust(etc, var, &making.ca_certificate_pem)
}

/// Drop-ins as an administrator of the host would write them; the units themselves are installed later, unmodified.
fn hurry(etc: &Path, every: Duration) -> io::Result<()> {
    let every = every.as_millis();
    let units = [
        (
            "timer",
            format!(
                "[Timer]\nOnUnitActiveSec=\nOnBootSec=5s\nOnUnitActiveSec={every}ms\nRandomizedDelaySec=0\nAccuracySec=100ms\n"
            ),
        ),
        (
            "service",
            "[Service]\nEnvironment=LOOK_EVERY_S=0\n".to_owned(),
        ),
    ];
    for (kind, text) in units {
        let folder = etc.join(format!("systemd/system/m8trx-brain-heartbeat.{kind}.d"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("hurry.conf"), text)?;
    }
    Ok(())
}

/// Puts the private CA behind the machine's own in every known bundle.
fn trust(etc: &Path, var: &Path, ca: &str) -> io::Result<()> {
    let machine = CA_BUNDLES
        .iter()
        .find_map(|path| fs::read(Path::new("/").join(path)).ok())
        .unwrap_or_default();
    let bundle = [&machine, b"\n".as_slice(), ca.as_bytes()].concat();
    for path in CA_BUNDLES {
        let path = match path.split_once('/') {
            Some(("etc", rest)) => etc.join(rest),
            Some((_, rest)) => var.join(rest),
            None => continue,
        };
        replace(&path, &bundle)?;
    }
    Ok(())
}

/// Writes a file of its own at `path`, where the copy may have put a link that leads elsewhere.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        // A folder may be a link to another in the copy (Fedora's /etc/ssl/certs); that one gets a bundle of its own.
        if fs::create_dir_all(folder).is_err() || !folder.is_dir() {
            return Ok(());
        }
        if fs::canonicalize(folder)? != normal(folder)? {
            return Ok(());
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, content)
}

fn normal(folder: &Path) -> io::Result<PathBuf> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    Ok(fs::canonicalize(parent)?.join(folder.file_name().unwrap_or_default()))
}

/// Copies what everybody may read. What cannot be copied is left out: a private file of the machine is not the host's.
fn copy(from: &Path, to: &Path) {
    let Ok(metadata) = fs::symlink_metadata(from) else {
        return;
    };
    let mode = metadata.permissions().mode();
    if metadata.is_symlink() {
        if let Ok(target) = fs::read_link(from) {
            let _ = symlink(target, to);
        }
    } else if metadata.is_dir() && mode & 0o005 == 0o005 {
        let (Ok(entries), Ok(())) = (fs::read_dir(from), fs::create_dir_all(to)) else {
            return;
        };
        for entry in entries.flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if metadata.is_file()
        && mode & 0o004 != 0
        && metadata.len() <= LARGEST_COPIED
        && let Ok(content) = fs::read(from)
    {
        let _ = fs::write(to, content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostConditions;

    fn making() -> Making {
        Making {
            instance_id: "i-0123456789abcdef0".into(),
            hostname: "ip-172-31-0-10".into(),
            hosts: vec![("127.0.0.3".parse().unwrap(), "tailscale.com".into())],
            addresses: Vec::new(),
            listeners: Vec::new(),
            ca_certificate_pem: "-----BEGIN CERTIFICATE-----\nprivate\n-----END CERTIFICATE-----\n"
                .into(),
            conditions: HostConditions::default(),
        }
    }

    #[test]
    fn writes_a_fresh_hosts_files_and_every_bundle() {
        let root = tempfile::tempdir().unwrap();
        let (etc, var) = (root.path().join("etc"), root.path().join("var"));
        fs::create_dir_all(etc.join("apt")).unwrap();
        fs::create_dir_all(&var).unwrap();
        write(&etc, &var, &making()).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert!(read("etc/hosts").contains("127.0.0.3 tailscale.com\n"));
        assert_eq!(read("etc/hostname"), "ip-172-31-0-10\n");
        assert_eq!(read("etc/machine-id").len(), 33);
        assert!(
            !read("etc/passwd").contains("/home/") || read("etc/passwd").contains("/home/ubuntu")
        );
        for bundle in CA_BUNDLES {
            assert!(
                read(bundle).ends_with("private\n-----END CERTIFICATE-----\n"),
                "{bundle}"
            );
        }
    }

    #[test]
    fn private_files_are_left_out_of_the_copy() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::set_permissions(&from, Permissions::from_mode(0o755)).unwrap();
        for (name, mode) in [("public", 0o644), ("private", 0o640)] {
            fs::write(from.join(name), name).unwrap();
            fs::set_permissions(from.join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(from.join("closed")).unwrap();
        fs::set_permissions(from.join("closed"), Permissions::from_mode(0o700)).unwrap();
        let to = root.path().join("to");
        copy(&from, &to);
        assert!(to.join("public").exists());
        assert!(!to.join("private").exists());
        assert!(!to.join("closed").exists());
    }
}
