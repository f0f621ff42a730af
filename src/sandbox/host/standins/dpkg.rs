//! `dpkg` and `dpkg-query`, as far as scripts ask whether something is installed.

use super::{err, out, packages};

/// Runs `dpkg`.
pub(super) fn run(arguments: &[String]) -> i32 {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--print-architecture"] => {
            out(packages::architecture());
            0
        }
        ["-s" | "--status", names @ ..] if !names.is_empty() => {
            let mut code = 0;
            for name in names {
                match packages::installed(name) {
                    Some(version) => out(format!(
                        "Package: {name}\nStatus: install ok installed\nVersion: {version}\n"
                    )),
                    None => {
                        err(format!(
                            "dpkg-query: package '{name}' is not installed and no information is available\nUse dpkg --info (= dpkg-deb --info) to examine archive files."
                        ));
                        code = 1;
                    }
                }
            }
            code
        }
        ["-l" | "--list", rest @ ..] => list(rest),
        ["--configure", "-a"] => 0,
        _ => {
            err(
                "dpkg: the sandbox's host knows only --print-architecture, -s, -l and --configure -a",
            );
            2
        }
    }
}

/// Runs `dpkg-query`.
pub(super) fn query(arguments: &[String]) -> i32 {
    let mut format = "${Package}\t${Version}\n".to_owned();
    let mut names = Vec::new();
    let mut show = false;
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            "-W" | "--show" => show = true,
            "-f" => format = arguments.next().unwrap_or_default().to_owned(),
            _ if argument.starts_with("--showformat=") => {
                format = argument["--showformat=".len()..].to_owned()
            }
            _ if argument.starts_with("-f=") => format = argument["-f=".len()..].to_owned(),
            _ if argument.starts_with("-f") => format = argument["-f".len()..].to_owned(),
            name => names.push(name),
        }
    }
    if !show {
        err("dpkg-query: the sandbox's host knows only -W");
        return 2;
    }
    let mut code = 0;
    for name in names {
        match packages::installed(name) {
            Some(version) => {
                let text = format
                    .replace("${Package}", name)
                    .replace("${binary:Package}", name)
                    .replace("${Version}", &version)
                    .replace("${Status}", "install ok installed")
                    .replace("${db:Status-Status}", "installed")
                    .replace("${Architecture}", packages::architecture())
                    .replace("\\n", "\n")
                    .replace("\\t", "\t");
                let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes());
            }
            None => {
                err(format!("dpkg-query: no packages found matching {name}"));
                code = 1;
            }
        }
    }
    code
}

fn list(names: &[&str]) -> i32 {
    let mut code = 0;
    for name in names {
        match packages::installed(name) {
            Some(version) => out(format!(
                "ii  {name}  {version}  {}",
                packages::architecture()
            )),
            None => {
                err(format!("dpkg-query: no packages found matching {name}"));
                code = 1;
            }
        }
    }
    code
}
